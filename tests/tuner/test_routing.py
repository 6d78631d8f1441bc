"""Routing, balance loss and statistics of whole models."""

import pytest
import torch
from torch.testing import assert_close

from llava_mole.mole import summarize_load
from llava_mole.tuner import (
    MoleLayer,
    balance_loss_of,
    load_stats,
    reset_balance_counts,
    routing_of,
)
from tests.mole import oracle
from tests.tuner import models


def padded(ids, lengths, left=False):
    """Zeros and masks what is beyond each row's length."""
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        if left:
            mask[row, ids.shape[1] - length :] = 1
        else:
            mask[row, :length] = 1
    return ids * mask, mask


def ffn_inputs(model, **inputs):
    """The FFNs' inputs, listened to from outside."""
    layers = [m for m in model.modules() if isinstance(m, MoleLayer)]
    seen = []
    handles = [
        layer.register_forward_pre_hook(lambda m, args: seen.append((m, args[0].detach())))
        for layer in layers
    ]
    model(**inputs)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("family", ["llama", "opt"])
@pytest.mark.parametrize("scope", ["sequence", "micro_batch"])
@pytest.mark.parametrize("norm", ["paper", "switch", "authors"])
def test_the_loss_equals_the_loop(norm, scope, family):
    model = models.mole(models.decoder(family), balance_norm=norm, balance_scope=scope)
    ids, mask = padded(models.batch(3), [9, 4, 6])
    seen = ffn_inputs(model, input_ids=ids, attention_mask=mask)
    choices, probs = [], []
    for layer, x in seen:
        weight = layer.mole_router["default"].weight.detach()
        logits = (x.flatten(0, -2) @ weight.t()).double()
        choices.append([oracle.first_argmax(row) for row in logits])
        probs.append(torch.stack([oracle.softmax(row) for row in logits]))
    rows = [row if real else -1 for row, line in enumerate(mask.tolist()) for real in line]
    expected = 0.01 * oracle.balance(choices, probs, rows, 3, norm, scope)
    sequences = 3 if scope == "sequence" else 1
    assert_close(balance_loss_of(model).double(), expected / sequences, rtol=1e-5, atol=1e-7)
    counts = routing_of(model).counts
    assert counts.sum((0, 2)).tolist() == [18, 8, 12]
    assert counts[0].sum(0).tolist() == [
        sum(c == k and s >= 0 for c, s in zip(choices[0], rows, strict=True)) for k in range(3)
    ]


def test_packed_segments_are_sequences():
    model = models.mole(models.decoder())
    position_ids = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2]])
    model(input_ids=models.batch(1), position_ids=position_ids)
    routing = routing_of(model)
    assert routing.lengths.tolist() == [4, 2, 3]
    assert routing.counts.shape == routing.probs.shape == (2, 3, 3)
    assert routing.counts.dtype == routing.probs.dtype == torch.float32
    assert_close(routing.probs.sum(-1), routing.counts.sum(-1))
    assert not routing.counts.requires_grad
    assert routing.probs.requires_grad


@pytest.mark.parametrize("scope", ["sequence", "micro_batch", "global_batch"])
def test_losses_add_up_over_micro_steps(scope):
    ids = models.batch(4)
    whole = models.mole(models.decoder(), balance_scope=scope)
    whole(ids)
    total = balance_loss_of(whole, num_sequences=4)
    reset_balance_counts(whole)
    parts = []
    for rows in (ids[:1], ids[1:]):
        whole(rows)
        parts.append(balance_loss_of(whole, num_sequences=4))
    if scope == "global_batch":  # the last micro-step knows the whole batch's loads
        counts, probs, _ = routing_of(whole)
        whole(ids)
        load = routing_of(whole).counts.sum(1) / 36
        expected = 0.01 * 3 * (load * probs.sum(1) / counts.sum((1, 2))[:, None]).sum(-1).mean()
        assert_close(parts[1], expected * 3 / 4)
    if scope == "sequence":
        assert_close(sum(parts), total)
        whole(ids)
        assert_close(balance_loss_of(whole), total)
    if scope == "micro_batch":  # one value per micro-step, weighing as many sequences as it has
        for rows, part in zip((ids[:1], ids[1:]), parts, strict=True):
            whole(rows)
            assert_close(part, balance_loss_of(whole) * len(rows) / 4)


def test_global_batch_counts_accumulate_and_reset():
    model = models.mole(models.decoder(), balance_scope="global_batch")
    state = next(m for m in model.modules() if isinstance(m, MoleLayer)).state
    for step in (1, 2):
        model(models.batch(2))
        balance_loss_of(model)
        balance_loss_of(model)  # asking twice counts once
        assert state.global_counts["default"].counts.sum(-1).tolist() == [18 * step] * 2
    with torch.no_grad():
        model(models.batch(2))
        balance_loss_of(model)  # evaluation in between does not count
    reset_balance_counts(model)
    model(models.batch(1))
    balance_loss_of(model)
    assert state.global_counts["default"].counts.sum(-1).tolist() == [9] * 2


def test_global_batch_inside_the_returned_loss_is_one_forward():
    model = models.mole(models.decoder(), balance_scope="global_batch").train()
    state = next(m for m in model.modules() if isinstance(m, MoleLayer)).state
    for _ in range(2):
        model(input_ids=models.batch(), labels=models.batch())
    assert state.global_counts["default"].counts.sum(-1).tolist() == [18] * 2


def test_balance_trains_the_router_only_through_probabilities():
    model = models.mole(models.decoder())
    model(models.batch())
    balance_loss_of(model).backward()
    router = [p for n, p in model.named_parameters() if "mole_router" in n]
    assert all(p.grad.any() for p in router)
    before = balance_loss_of_after_steps(model, 0)
    assert balance_loss_of_after_steps(model, 30) < before


def balance_loss_of_after_steps(model, steps):
    routers = [p for n, p in model.named_parameters() if "mole_router" in n]
    optimizer = torch.optim.SGD(routers, lr=20.0)
    for _ in range(steps):
        model(models.batch())
        optimizer.zero_grad()
        balance_loss_of(model).backward()
        optimizer.step()
    model(models.batch())
    return balance_loss_of(model).item()


def test_without_a_gate_the_language_loss_never_reaches_the_router():
    for gate_scaling in ("none", "prob", "straight_through"):
        model = models.mole(models.decoder(), gate_scaling=gate_scaling)  # eval: no balance loss
        ids = models.batch()
        model(input_ids=ids, labels=ids).loss.backward()
        gradients = [p.grad for n, p in model.named_parameters() if "mole_router" in n]
        if gate_scaling == "none":
            assert gradients == [None, None]
        else:
            assert all(g.any() for g in gradients)


def test_loss_is_added_once_in_training_only():
    ids = models.batch()
    model = models.mole(models.decoder())
    plain = model(input_ids=ids, labels=ids).loss
    model.train()
    total = model(input_ids=ids, labels=ids).loss
    assert_close(total, plain + balance_loss_of(model))
    as_tuple = model(input_ids=ids, labels=ids, return_dict=False)[0]
    assert_close(as_tuple, total)
    assert model(input_ids=ids).get("loss") is None
    # Trainer's token normalisation: two micro-batches of half the tokens count it once together.
    tokens = int((ids[:, 1:] != -100).sum())
    half = model(input_ids=ids, labels=ids, num_items_in_batch=2 * tokens).loss
    model.eval()
    plain_half = model(input_ids=ids, labels=ids, num_items_in_batch=2 * tokens).loss
    assert_close(half - plain_half, balance_loss_of(model) / 2, rtol=1e-4, atol=1e-6)


def test_dense_has_nothing_to_balance():
    model = models.mole(models.decoder(), routing="dense")
    model(models.batch())
    loss = balance_loss_of(model)
    assert loss.item() == 0
    loss.backward()
    assert all(not p.grad.any() for n, p in model.named_parameters() if "mole_router" in n)


def test_load_stats_by_dataset():
    model = models.mole(models.decoder())
    model(models.batch(3))
    tokens = load_stats(model, torch.tensor([1, 0, 1]), 3)
    counts = routing_of(model).counts
    assert_close(tokens[0], counts[:, 1])
    assert_close(tokens[1], counts[:, 0] + counts[:, 2])
    assert not tokens[2].any()
    assert summarize_load(tokens)["load"].shape == (2, 3)
    with pytest.raises(ValueError, match="names 2 sequences, the last forward had 3"):
        load_stats(model, torch.tensor([0, 1]), 2)


def test_models_without_routing_say_so():
    with pytest.raises(ValueError, match="has no MoLE adapter"):
        routing_of(models.decoder())
    model = models.mole(models.decoder())
    with pytest.raises(ValueError, match="Run a forward"):
        balance_loss_of(model)


def run_checkpointed(use_reentrant):
    ids, mask = padded(models.batch(), [9, 5])
    model = models.mole(models.decoder(), gate_scaling="prob").train()
    if use_reentrant is not None:
        model.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": use_reentrant}
        )
        model.enable_input_require_grads()
    loss = model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss
    records = next(m for m in model.modules() if isinstance(m, MoleLayer)).state.records
    before = {index: record[1] for index, record in records["default"].items()}
    loss.backward()  # runs the layers again, which must not replace what the loss was made from
    assert all(records["default"][index][1] is probs for index, probs in before.items())
    return loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_gradient_checkpointing_changes_nothing():
    loss, gradients = run_checkpointed(use_reentrant=False)
    expected_loss, expected = run_checkpointed(use_reentrant=None)
    assert torch.equal(loss, expected_loss)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(gradients[name], gradient)
        assert gradient.any() or "router" not in name


def test_reentrant_checkpointing_is_refused():
    with pytest.raises(ValueError, match="'use_reentrant': False"):
        run_checkpointed(use_reentrant=True)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox", "gemma3"])
def test_generation_with_cache_equals_without(family):
    model = models.mole(models.decoder(family), gate_scaling="prob")
    ids, mask = padded(models.batch(), [9, 5], left=True)
    inputs = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 8, "do_sample": False}
    cached = model.generate(**inputs, use_cache=True)
    assert torch.equal(cached, model.generate(**inputs, use_cache=False))
    alone = model.generate(
        input_ids=ids[1:, 4:], attention_mask=mask[1:, 4:], max_new_tokens=8, do_sample=False
    )
    assert torch.equal(cached[1, 9:][: alone.shape[1] - 5], alone[0, 5:])
    last = routing_of(model)
    assert last.counts.shape == (2, 1, 3)


def test_left_padding_takes_no_part():
    model = models.mole(models.decoder())
    ids, mask = padded(models.batch(), [9, 5], left=True)
    logits = model(input_ids=ids, attention_mask=mask).logits
    routing = routing_of(model)
    assert routing.lengths.tolist() == [9, 5]
    alone = model(input_ids=ids[1:, 4:]).logits
    assert_close(logits[1:, 4:], alone, rtol=1e-5, atol=1e-5)
    assert_close(routing_of(model).counts[:, 0], routing.counts[:, 1])


def test_llava_generates_as_it_scores():
    model = models.mole(models.llava())
    inputs = models.llava_batch()
    inputs.pop("labels")
    answer = model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=None)
    inputs["input_ids"] = answer[:, :-1]
    inputs["attention_mask"] = (answer[:, :-1] != 0).long()
    inputs["attention_mask"][:, -3:] = 1
    scored = model(**inputs).logits.argmax(-1)
    assert torch.equal(scored[:, -4:], answer[:, -4:])
