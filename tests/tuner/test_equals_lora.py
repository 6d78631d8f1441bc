"""One expert is a plain LoRA: PEFT's own is the reference."""

import pytest
import torch
from torch.testing import assert_close

from tests.tuner import models


def step(model, inputs, labels):
    """Logits and all gradients, of the embeddings (the gradient of x) too."""
    embeddings = model.get_input_embeddings()(inputs).detach().requires_grad_()
    logits = model(inputs_embeds=embeddings, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), embeddings.grad, gradients


def compare(mole, lora, check):
    ids = models.batch()
    logits, grad_x, grads = step(mole, ids, ids)
    expected_logits, expected_x, expected = step(lora, ids, ids)
    check(logits, expected_logits)
    check(grad_x, expected_x)
    assert len(expected) >= 16
    for name, gradient in expected.items():
        if name in grads:
            check(grads[name], gradient)
        else:
            check(grads[models.mole_key(name, grads)][0], gradient)


def bitwise(actual, expected):
    assert torch.equal(actual, expected)
    assert expected.any()


def close(actual, expected):
    scale = float(expected.abs().max())
    assert_close(actual / scale, expected / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_bit_for_bit_on_the_reference_path(family):
    mole = models.mole(models.decoder(family), num_experts=1, dispatch="loop")
    compare(mole, models.peft_lora(models.decoder(family), mole), bitwise)


@pytest.mark.parametrize("gate_scaling", ["none", "prob", "straight_through"])
@pytest.mark.parametrize("dispatch", ["auto", "masked", "grouped"])
def test_to_1e_6_on_the_others(dispatch, gate_scaling):
    mole = models.mole(
        models.decoder(), num_experts=1, dispatch=dispatch, gate_scaling=gate_scaling
    )
    compare(mole, models.peft_lora(models.decoder(), mole), close)


def test_dense_with_one_expert_and_rslora():
    mole = models.mole(models.decoder(), num_experts=1, routing="dense", use_rslora=True)
    compare(mole, models.peft_lora(models.decoder(), mole), close)


def test_bit_for_bit_in_bfloat16_with_float32_adapters():
    mole = models.mole(models.decoder().bfloat16(), num_experts=1, dispatch="loop")
    assert {p.dtype for n, p in mole.named_parameters() if "mole_" in n} == {torch.float32}
    compare(mole, models.peft_lora(models.decoder().bfloat16(), mole), bitwise)


def test_the_balance_loss_changes_nothing_for_one_expert():
    ids = models.batch()
    mole = models.mole(models.decoder(), num_experts=1, dispatch="loop").train()
    lora = models.peft_lora(models.decoder(), mole).train()
    loss, expected = (m(input_ids=ids, labels=ids).loss for m in (mole, lora))
    assert_close(loss - expected, torch.tensor(0.01), rtol=0, atol=1e-6)  # 1 when balanced, x coef
    loss.backward()
    expected.backward()
    weights = dict(mole.named_parameters())
    for name, parameter in lora.named_parameters():
        if parameter.grad is not None:
            key = name if name in weights else models.mole_key(name, weights)
            gradient = weights[key].grad
            assert torch.equal(gradient if key == name else gradient[0], parameter.grad)
