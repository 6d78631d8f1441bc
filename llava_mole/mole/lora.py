"""A linear and its LoRA as one autograd Function (LoRA, Hu et al. 2021, Eq. 3).

``y = W x + b + s B A x`` in place: nothing of the output's size is made twice, neither in the
forward pass nor for the gradient of ``x``, which PEFT's LoRA, operation by operation, does four
times. Only ``x`` and the rank-r activations are kept.
"""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from llava_mole.mole.dropout import draw_seeds, drop


def lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    A: torch.Tensor,
    B: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """A frozen linear with a trained LoRA, computed in the dtype of ``x`` whatever the LoRA's.

    Args:
        x: ``(..., in)``.
        weight: ``(out, in)`` in the dtype of ``x``; gets no gradient.
        bias: ``(out,)`` or None; gets no gradient.
        A: ``(r, in)``.
        B: ``(out, r)``.
        scaling: ``lora_alpha / r``.
        dropout: Probability of LoRA dropout; 0 outside training.

    Returns:
        ``(..., out)`` in the dtype of ``x``.
    """
    shape = x.shape
    x = x.reshape(-1, shape[-1])
    if torch.is_grad_enabled() or dropout:
        seed = draw_seeds(1)[0] if dropout else 0
        y = _LoraLinear.apply(x, weight, bias, A, B, scaling / (1 - dropout), dropout, seed)
    else:
        y = _forward(x, weight, bias, A.to(x.dtype), B.to(x.dtype), scaling, x)[0]
    return y.view(*shape[:-1], len(weight))


def _forward(x, weight, bias, A, B, scaling, dropped):
    z = (dropped @ A.t()).mul_(scaling)
    return F.linear(x, weight, bias).addmm_(z, B.t()), z


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, A, B, scaling, dropout, seed):
        with torch.autocast(x.device.type, enabled=False):
            dropped = drop(x, dropout, seed) if dropout else x
            y, z = _forward(x, weight, bias, A.to(x.dtype), B.to(x.dtype), scaling, dropped)
        ctx.save_for_backward(x, z, weight, A, B)
        ctx.scaling, ctx.dropout, ctx.seed = scaling, dropout, seed
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, z, weight, A, B = ctx.saved_tensors
        needs_x, _, _, needs_A, needs_B = ctx.needs_input_grad[:5]
        dx = dA = dB = None
        with torch.autocast(x.device.type, enabled=False):
            down = A.to(x.dtype)
            dz = (dy @ B.to(x.dtype)).mul_(ctx.scaling)
            if needs_B:
                dB = (dy.t() @ z).to(B.dtype)
            if needs_A:
                dropped = drop(x, ctx.dropout, ctx.seed) if ctx.dropout else x
                dA = (dz.t() @ dropped).to(A.dtype)
                del dropped
            if needs_x:
                dx = dy @ weight
                if ctx.dropout:
                    dx += drop(dz @ down, ctx.dropout, ctx.seed)
                else:
                    dx.addmm_(dz, down)
        return dx, None, None, dA, dB, None, None, None
