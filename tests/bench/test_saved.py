"""Saved bytes against numbers counted by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from llava_mole.bench.saved import bytes_saved


def test_each_storage_counts_once_and_parameters_never():
    x = torch.randn(5, 8, requires_grad=True)
    linear = nn.Linear(8, 16)
    # Linear saves x (160 bytes) for its weight and the weight for x; exp saves its result (320).
    assert bytes_saved(lambda: linear(x).exp(), linear.parameters()) == 160 + 320
    # Both calls save the same x; then each its own.
    assert bytes_saved(lambda: linear(x) + linear(x.view(5, 8)), linear.parameters()) == 160
    assert bytes_saved(lambda: linear(x) + linear(2 * x), linear.parameters()) == 160 + 160
    assert bytes_saved(lambda: linear(x).exp(), ()) == 160 + 320 + 16 * 8 * 4


def test_a_frozen_linear_saves_no_input_and_bfloat16_halves_the_rest():
    x = torch.randn(5, 8, requires_grad=True, dtype=torch.bfloat16)
    linear = nn.Linear(8, 16, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    assert bytes_saved(lambda: F.silu(linear(x)), linear.parameters()) == 5 * 16 * 2
    with torch.no_grad():
        assert bytes_saved(lambda: F.silu(linear(x)), linear.parameters()) == 0


def test_a_part_of_a_storage_holds_all_of_it():
    x = torch.randn(100, requires_grad=True)
    assert bytes_saved(lambda: (2 * x)[:3].exp().sum(), ()) == 3 * 4
    assert bytes_saved(lambda: (2 * x)[:3].pow(2).sum(), ()) == 100 * 4


def test_a_function_of_ones_own_counts_too():
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, x.clone())
            return x * x

        @staticmethod
        def backward(ctx, grad):
            return grad

    x = torch.randn(10, requires_grad=True)
    assert bytes_saved(lambda: Square.apply(x), ()) == 2 * 40
