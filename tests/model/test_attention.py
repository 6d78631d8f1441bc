"""Packed rows, sample by sample: as by the whole row's mask, forward and backward; nothing else."""

import pytest
import torch
from torch import nn

from llava_mole.model import attention
from llava_mole.model.attention import attend_by_sample, varlen_attention, varlen_mask
from tests import tiny

LENGTHS = (5, 1, 9, 3)


@pytest.fixture
def llava():
    return tiny.tiny_llava().double().train()


def packed(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(0)
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    return {
        "input_ids": torch.randint(3, 250, (1, sum(lengths)), generator=generator),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def results(model, batch):
    """Logits and all gradients of their weighted sum."""
    model.zero_grad()
    logits = model(**batch, use_cache=False).logits
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    (logits * weights).sum().backward()
    grads = [p.grad.clone() for p in model.model.language_model.parameters()]
    return [logits.detach(), *grads]


@pytest.mark.parametrize("told", [True, False], ids=["cu_seq_lens", "position_ids"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_packed_row_is_as_under_the_whole_rows_mask(llava, monkeypatch, told, checkpointing):
    batch = packed()
    wanted = results(llava, batch)
    if not told:
        batch = {key: batch[key] for key in ("input_ids", "position_ids")}
    if checkpointing:
        llava.gradient_checkpointing_enable({"use_reentrant": False})
    assert attend_by_sample(llava)
    masks = []
    monkeypatch.setattr(attention, "sdpa_mask", lambda *args, **kwargs: masks.append(args))
    found = results(llava, batch)
    assert not masks
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


def test_samples_do_not_see_each_other(llava):
    attend_by_sample(llava)
    batch = packed()
    before = llava(**batch, use_cache=False).logits
    batch["input_ids"][0, 6] += 1
    after = llava(**batch, use_cache=False).logits
    changed = (after != before).any(-1)[0]
    assert changed[6:15].all()
    assert not changed[:6].any()
    assert not changed[15:].any()


@pytest.mark.parametrize("case", ["padded right", "padded left", "two packed rows", "one", "none"])
def test_other_rows_are_as_before(llava, case):
    ids = packed()["input_ids"][:, :12].view(2, 6)
    batch = {"input_ids": ids}
    if case.startswith("padded"):
        mask = torch.ones_like(ids)
        mask[1, 4:] = 0
        batch["attention_mask"] = mask.flip(1) if case.endswith("left") else mask
    elif case == "two packed rows":
        batch["position_ids"] = torch.tensor([[0, 1, 0, 1, 2, 3], [0, 1, 2, 0, 1, 2]])
    else:
        batch = {"input_ids": ids.view(1, 12)}
        if case == "one":
            batch["position_ids"] = torch.arange(12)[None]
    wanted = results(llava, batch)
    attend_by_sample(llava)
    real = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    found = results(llava, batch)
    torch.testing.assert_close(found[0][real], wanted[0][real], atol=1e-12, rtol=0)


def test_generation_is_as_before(llava):
    llava.eval()
    ids = packed()["input_ids"][:, :12].view(2, 6)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    options = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False}
    wanted = llava.generate(ids, **options)
    attend_by_sample(llava)
    assert torch.equal(llava.generate(ids, **options), wanted)


def test_what_is_more_than_causal_keeps_its_mask(llava):
    config = llava.get_decoder().config
    for key, value in {
        "_attn_implementation": "eager",
        "model_type": "gemma3",
        "sliding_window": 4,
        "layer_types": ["full_attention", "sliding_attention"],
    }.items():
        had = key in vars(config)
        before = getattr(config, key, None)
        setattr(config, key, value)
        assert not attend_by_sample(llava)
        setattr(config, key, before) if had or before is not None else delattr(config, key)
    assert attend_by_sample(llava)


def test_where_samples_begin_is_asked_once_for_all_layers(monkeypatch):
    asked = []
    bounds = packed()["cu_seq_lens_q"]
    monkeypatch.setattr(
        torch.Tensor,
        "tolist",
        lambda tensor, plain=torch.Tensor.tolist: asked.append(1) or plain(tensor),
    )
    heads = torch.randn(1, 2, sum(LENGTHS), 4)
    for _ in range(3):
        varlen_attention(nn.Module(), heads, heads, heads, None, cu_seq_lens_q=bounds, scaling=0.5)
    assert len(asked) == 1


def test_no_mask_only_where_the_attention_knows_better():
    assert varlen_mask(1, 6, 6) is None
    assert varlen_mask(2, 6, 6, allow_is_causal_skip=False).shape == (2, 1, 6, 6)
    assert varlen_mask(1, 2, 6, allow_is_causal_skip=False).shape == (1, 1, 2, 6)
    padded = varlen_mask(1, 2, 2, attention_mask=torch.tensor([[True, False]]))
    assert padded.tolist() == [[[[True, False], [True, False]]]]
