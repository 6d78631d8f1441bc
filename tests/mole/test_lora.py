"""A linear with its LoRA in one operation, against PEFT's."""

import pytest
import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import nn
from torch.testing import assert_close

from llava_mole.mole import lora_linear
from llava_mole.mole.dropout import drop

ROWS, LENGTH, D_IN, D_OUT, R = 2, 5, 6, 10, 4


def peft_linear(bias, dtype=torch.float64):
    torch.manual_seed(0)
    base = nn.Linear(D_IN, D_OUT, bias=bias).to(dtype).requires_grad_(False)
    config = LoraConfig(r=R, lora_alpha=3 * R)
    layer = lora.Linear(base, "default", config, r=R, lora_alpha=3 * R).to(dtype)
    nn.init.normal_(layer.lora_B["default"].weight)
    return layer


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def run(function, x, A, B, dy):
    leaves = [t.detach().clone().requires_grad_() for t in (x, A, B)]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad((y * dy).sum(), leaves)]


def fused(layer, dropout=0.0):
    base = layer.get_base_layer()
    return lambda x, A, B: lora_linear(x, base.weight, base.bias, A, B, 3.0, dropout)


def weights(layer):
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


@pytest.mark.parametrize("bias", [False, True])
def test_equals_peft(bias):
    layer = peft_linear(bias)
    x, dy = draw(ROWS, LENGTH, D_IN), draw(ROWS, LENGTH, D_OUT)
    A, B = weights(layer)
    x.requires_grad_()
    y = layer(x)
    expected = [y.detach(), *torch.autograd.grad((y * dy).sum(), (x, A, B))]
    for actual, value in zip(run(fused(layer), x, A, B, dy), expected, strict=True):
        assert_close(actual, value, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        assert_close(fused(layer)(x, A, B), expected[0], rtol=1e-12, atol=1e-12)


def test_dropout_is_the_same_in_both_passes():
    layer = peft_linear(True)
    base = layer.get_base_layer()
    x, dy = draw(LENGTH, D_IN), draw(LENGTH, D_OUT)
    torch.manual_seed(7)
    actual = run(fused(layer, 0.4), x, *weights(layer), dy)
    torch.manual_seed(7)
    keep = drop(torch.ones_like(x), 0.4, int(torch.randint(2**62, (1,)))) / 0.6
    assert 0 < (keep == 0).sum() < keep.numel()

    def slow(x, A, B):
        return base(x) + 3.0 * (x * keep) @ A.t() @ B.t()

    for a, e in zip(actual, run(slow, x, *weights(layer), dy), strict=True):
        assert_close(a, e, rtol=1e-12, atol=1e-12)


def test_dropout_without_gradients_drops_too():
    layer = peft_linear(False)
    x = draw(LENGTH, D_IN)
    with torch.no_grad():
        first, second = (fused(layer, 0.5)(x, *weights(layer)) for _ in range(2))
    assert not torch.equal(first, second)


def test_float32_lora_on_a_bfloat16_base():
    layer = peft_linear(True)
    base = layer.get_base_layer().bfloat16()
    A, B = (w.float() for w in weights(layer))
    x, dy = draw(LENGTH, D_IN, dtype=torch.bfloat16), draw(LENGTH, D_OUT, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y, dx, dA, dB = run(fused(layer), x, A, B, dy)
    assert (y.dtype, dx.dtype, dA.dtype, dB.dtype) == (torch.bfloat16,) * 2 + (torch.float32,) * 2
    exact = [t.double() for t in (x, A, B)]

    def slow(x, A, B):
        return x @ base.weight.double().t() + base.bias.double() + 3.0 * x @ A.t() @ B.t()

    for a, e in zip((y, dx, dA, dB), run(slow, *exact, dy.double()), strict=True):
        assert (a.double() - e).norm() < 0.02 * e.norm()


def test_keeps_its_input_and_the_rank_r_activations_alone():
    layer = peft_linear(True, torch.float32)
    x = draw(LENGTH, D_IN, dtype=torch.float32).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(tuple(t.shape)) or t, lambda t: t
    ):
        fused(layer)(x, *weights(layer))
    assert sorted(kept) == sorted(
        [(LENGTH, D_IN), (LENGTH, R), (D_OUT, D_IN), (R, D_IN), (D_OUT, R)]
    )


def test_frozen_parts_get_no_gradient():
    layer = peft_linear(True)
    x, dy = draw(LENGTH, D_IN), draw(LENGTH, D_OUT)
    A, B = (w.detach().clone() for w in weights(layer))
    A.requires_grad_()
    (fused(layer)(x, A, B) * dy).sum().backward()
    assert x.grad is None
    assert B.grad is None
    assert A.grad.any()
