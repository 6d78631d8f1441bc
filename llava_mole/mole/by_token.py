"""The few tokens of a decode step on the CPU, one after the other, through a whole SwiGLU FFN.

Such a step waits for weights to be read from memory. So every token reads its own expert in place,
nothing is read twice, and next to no operation is left besides the products: between two of them
megabytes of weights pass, so that each finds cold caches.
"""

import torch
from torch.nn import functional as F

from llava_mole.mole.dispatch import BY_TOKEN_DTYPES
from llava_mole.mole.fused import FusedSettings
from llava_mole.mole.router import Route, router_logits


class _LateRoute:
    """A :class:`Route` whose probabilities are computed if somebody asks: after a step, nobody."""

    gate = None

    def __init__(self, choice: torch.Tensor, logits: torch.Tensor):
        self.choice = choice
        self.logits = logits

    @property
    def probs(self) -> torch.Tensor:
        return F.softmax(self.logits, dim=-1)


def takes_by_token(x: torch.Tensor, routing: str) -> bool:
    """Whether :func:`ffn_by_token` suits an input of few tokens without gradients."""
    return (
        routing == "top1"
        and x.device.type == "cpu"
        and x.dtype in BY_TOKEN_DTYPES
        and not torch.is_autocast_enabled("cpu")
    )


def ffn_by_token(
    x: torch.Tensor,
    router: tuple[torch.Tensor, torch.Tensor | None] | torch.Tensor,
    base: tuple[torch.Tensor | None, ...],
    experts: tuple[torch.Tensor, ...],
    settings: FusedSettings,
) -> tuple[torch.Tensor, Route]:
    """What :func:`~llava_mole.mole.fused_ffn` computes, for inference and few tokens on the CPU.

    Args:
        x: ``(T, D)``.
        router: weight ``(K, D)`` and bias ``(K,)`` or None; or the tokens' logits ``(T, K)``.
        base: weight and bias of gate, up and down.
        experts: A ``(K, r, in)`` and B ``(K, out, r)`` of gate, up and down.
        settings: the rest; top-1 routing, no dropout.

    Returns:
        ``(T, D)``, and the route.
    """
    logits = router if isinstance(router, torch.Tensor) else _logits(x, *router)
    choice = logits.argmax(dim=-1)
    route = _LateRoute(choice, logits)
    alphas = [settings.scaling] * len(x)
    if settings.gate_scaling == "prob":
        gate = route.probs.gather(1, choice[:, None]).squeeze(1)
        alphas = (gate * settings.scaling).tolist()
    tokens = [(t, k, alphas[t]) for t, k in enumerate(choice.tolist())]
    W_gate, b_gate, W_up, b_up, W_down, b_down = base
    gate_A, gate_B, up_A, up_B, down_A, down_B = experts
    g = _linear(x, W_gate, b_gate, gate_A, gate_B, tokens)
    u = _linear(x, W_up, b_up, up_A, up_B, tokens)
    return _linear(F.silu(g).mul_(u), W_down, b_down, down_A, down_B, tokens), route


def _logits(x, weight, bias):
    if x.dtype == weight.dtype:
        return F.linear(x, weight, bias)
    return router_logits(x, weight, bias)


def _linear(x, weight, bias, A, B, tokens):
    if len(x) == 1:
        y = torch.mv(weight, x[0]) if bias is None else torch.addmv(bias, weight, x[0])
        y = y[None]
    else:
        y = F.linear(x, weight, bias)
    for t, k, alpha in tokens:
        y[t].addmv_(B[k], torch.mv(A[k], x[t]), alpha=alpha)
    return y
