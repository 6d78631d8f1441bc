"""A gated FFN with its router and experts as one autograd Function (LLaVA-MoLE, Sec. 3.3-3.4).

    logits = x W_r^T                          k = argmax(logits)               (Eq. 3)
    g = W_g x + s B_k^g A_k^g x               u = W_u x + s B_k^u A_k^u x      (Eq. 4, 5)
    y = W_d h + s B_k^d A_k^d h               h = silu(g) * u

Tokens are sorted by expert once, everything runs on that order, and the result is unsorted once.
For the backward pass it keeps x (which the router and the residual stream hold anyway), the order,
g, u and the rank-r activations: 51 KiB a token at 7B in bfloat16, where PEFT's LoRA keeps 94. What
else is needed is computed again, two elementwise operations.
"""

from dataclasses import dataclass

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from llava_mole.mole.dropout import draw_seeds, drop
from llava_mole.mole.products import Grouped, Masked, Products, Sliced, products_for
from llava_mole.mole.router import Route, router_logits


@dataclass(frozen=True)
class FusedSettings:
    """What :func:`fused_ffn` does besides its tensors.

    Attributes:
        scaling: ``lora_alpha / r``.
        routing: ``"top1"`` or ``"dense"``.
        gate_scaling: as :func:`~llava_mole.mole.route` takes it.
        dropout: probability of LoRA dropout on each linear's input; 0 outside training.
        form: of `llava_mole.mole.products`, ``"sliced"``, ``"grouped"`` or ``"masked"`` (dense
            routing knows no other); None: the one that suits device and sizes.
    """

    scaling: float
    routing: str = "top1"
    gate_scaling: str = "none"
    dropout: float = 0.0
    form: str | None = None


def fused_ffn(
    x: torch.Tensor,
    router: tuple[torch.Tensor, torch.Tensor | None] | torch.Tensor,
    base: tuple[torch.Tensor | None, ...],
    experts: tuple[torch.Tensor, ...],
    settings: FusedSettings,
) -> tuple[torch.Tensor, Route]:
    """Routes tokens and runs them through a SwiGLU FFN and their experts.

    The experts compute in the dtype of ``x`` whatever their own; the router in at least float32.

    Args:
        x: ``(T, D)``.
        router: weight ``(K, D)`` and bias ``(K,)`` or None; or the tokens' logits ``(T, K)`` from
            elsewhere, in at least float32.
        base: weight and bias of gate ``(F, D)``, up ``(F, D)`` and down ``(D, F)``, in the dtype of
            ``x``; frozen: they get no gradient.
        experts: A ``(K, r, in)`` and B ``(K, out, r)`` of gate, up and down.
        settings: the rest.

    Returns:
        ``(T, D)`` in the dtype of ``x``, and the route, whose gate is None: it is applied already.

    Raises:
        ValueError: If ``settings.form`` is unknown or cannot compute these sizes or dtypes.
    """
    seeds = draw_seeds(3) if settings.dropout else ()
    given = router if isinstance(router, torch.Tensor) else None
    weight, bias = (None, None) if given is not None else router
    y, logits, choice = _FusedFfn.apply(settings, seeds, x, weight, bias, given, *base, *experts)
    return y, Route(choice, F.softmax(logits if given is None else given, dim=-1), None)


class _FusedFfn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, settings, seeds, x, router_weight, router_bias, given, *weights):
        with torch.autocast(x.device.type, enabled=False):
            W_gate, b_gate, W_up, b_up, W_down, b_down = weights[:6]
            gate_A, gate_B, up_A, up_B, down_A, down_B = (w.to(x.dtype) for w in weights[6:])
            logits = router_logits(x, router_weight, router_bias) if given is None else given
            choice = logits.argmax(dim=-1)
            form = "masked" if settings.routing == "dense" else settings.form
            products = products_for(choice, gate_A, down_A, form)
            factor = _factor(settings, products, logits, choice)
            into, inside = (
                _Downs(products, settings.scaling, settings.dropout, part)
                for part in (seeds[:2], seeds[2:])
            )
            xs = products.sort(x)
            z = into.forward(xs, gate_A, up_A)
            z_gate, z_up = z.chunk(2, dim=1)
            g = products.up_(F.linear(xs, W_gate, b_gate), products.weigh(z_gate, factor), gate_B)
            u = products.up_(F.linear(xs, W_up, b_up), products.weigh(z_up, factor), up_B)
            h = F.silu(g).mul_(u)
            z_down = inside.forward(h, down_A)
            y = products.up_(F.linear(h, W_down, b_down), products.weigh(z_down, factor), down_B)
            y = products.unsort(y)
        ctx.settings, ctx.seeds, ctx.kind = settings, seeds, type(products)
        ctx.ends = products.ends if isinstance(products, Sliced) else None
        ctx.save_for_backward(
            x,
            g,
            u,
            z,
            z_down,
            logits if _learns_from_task(settings) else None,
            choice,
            getattr(products, "order", None),
            products.ends if isinstance(products, Grouped) else None,
            router_weight,
            *weights,
        )
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(choice)
        return y, logits if given is None else None, choice

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dlogits, _):
        # Asked for once: activation checkpointing makes them anew on every asking.
        saved = ctx.saved_tensors
        with torch.autocast(saved[0].device.type, enabled=False):
            return _backward(ctx, saved, dy, dlogits)


def _backward(ctx, saved, dy, dlogits):
    settings = ctx.settings
    x, g, u, z, z_down, logits, choice, order, ends, router_weight, *weights = saved
    needs_x, needs_router_weight, needs_router_bias = ctx.needs_input_grad[2:5]
    dx, gradients = None, [None] * 6
    if dy is not None:
        W_gate, W_up, W_down = weights[0:6:2]
        gate_A, gate_B, up_A, up_B, down_A, down_B = (w.to(x.dtype) for w in weights[6:])
        products = _restored(ctx, order, ends, len(gate_A))
        factor = _factor(settings, products, logits, choice)
        into, inside = (
            _Downs(products, settings.scaling, settings.dropout, part)
            for part in (ctx.seeds[:2], ctx.seeds[2:])
        )
        r = down_A.shape[1]
        dy = products.sort(dy)
        # down: y = W_d h + B zf with zf = factor * z and z = s A h
        dzf_down, down_dB = _up_backward(products, dy, z_down, factor, down_B, r)
        dh = dy @ W_down
        del dy
        silu = F.silu(g)
        h = silu * u
        dz = products.weigh(dzf_down, factor)
        (down_dA,) = inside.backward(dz, h, dh, r, down_A)
        # h = silu(g) * u
        du = torch.mul(dh, silu, out=h)
        dg = torch.ops.aten.silu_backward(dh.mul_(u), g)
        del silu, dh
        # gate and up, which share their input
        z_gate, z_up = z.chunk(2, dim=1)
        dzf_gate, gate_dB = _up_backward(products, dg, z_gate, factor, gate_B, r)
        dzf_up, up_dB = _up_backward(products, du, z_up, factor, up_B, r)
        dz = [products.weigh(dzf, factor) for dzf in (dzf_gate, dzf_up)]
        dxs = (dg @ W_gate).addmm_(du, W_up) if needs_x else None
        del dg, du, h
        gate_dA, up_dA = into.backward(torch.cat(dz, dim=1), products.sort(x), dxs, r, gate_A, up_A)
        dx = None if dxs is None else products.unsort(dxs)
        gradients = [gate_dA, gate_dB, up_dA, up_dB, down_dA, down_dB]
        gradients = [
            d.to(w.dtype) if needed else None
            for d, w, needed in zip(gradients, weights[6:], ctx.needs_input_grad[12:], strict=True)
        ]
        if _learns_from_task(settings):
            parts = ((dzf_gate, z_gate), (dzf_up, z_up), (dzf_down, z_down))
            dfactor = sum(products.factor_gradient(dzf, part, r) for dzf, part in parts)
            task = _factor_backward(settings, dfactor, logits, choice)
            dlogits = task if dlogits is None else dlogits + task
    dweight = dbias = dgiven = None
    if router_weight is None:
        dgiven = dlogits
    elif dlogits is not None:
        if needs_x:
            back = (dlogits @ router_weight.to(dlogits.dtype)).to(x.dtype)
            dx = back if dx is None else dx.add_(back)
        if needs_router_weight:
            dweight = (dlogits.t() @ x.to(dlogits.dtype)).to(router_weight.dtype)
        if needs_router_bias:
            dbias = dlogits.sum(0).to(router_weight.dtype)
    return None, None, dx, dweight, dbias, dgiven, *[None] * 6, *gradients


def _restored(ctx, order, ends, K) -> Products:
    """The forward pass's form, from what was saved of it."""
    if ctx.kind is Masked:
        return Masked(K)
    return Sliced(order, ctx.ends) if ctx.kind is Sliced else Grouped(order, ends)


def _learns_from_task(settings: FusedSettings) -> bool:
    """Whether the language loss gives the router a gradient."""
    return settings.routing == "dense" or settings.gate_scaling != "none"


def _factor(settings, products, logits, choice) -> torch.Tensor | None:
    """How much a token gets of every expert ``(T, K)`` or of its own ``(T,)``; None: all of it."""
    if settings.routing == "dense":
        return F.softmax(logits, dim=-1)
    gate = None
    if settings.gate_scaling == "prob":
        gate = F.softmax(logits, dim=-1).gather(1, choice[:, None])
    if not isinstance(products, Masked):
        return None if gate is None else gate.squeeze(1)
    dtype = torch.float32 if gate is None else gate.dtype
    shape = (len(choice), products.num_experts)
    one_hot = torch.zeros(shape, dtype=dtype, device=choice.device)
    return one_hot.scatter_(1, choice[:, None], 1 if gate is None else gate)


def _factor_backward(settings, dfactor, logits, choice):
    """Gradient of the logits from that of the factor, through the softmax."""
    probs = F.softmax(logits, dim=-1)
    dprobs = dfactor
    if settings.routing == "top1":
        own = dfactor[:, None] if dfactor.dim() == 1 else dfactor.gather(1, choice[:, None])
        dprobs = torch.zeros_like(probs).scatter_(1, choice[:, None], own)
    return probs * (dprobs - (dprobs * probs).sum(-1, keepdim=True))


def _up_backward(products, dy, z, factor, B, r):
    """Gradients of ``factor * z`` and of B in ``y = B (factor * z)``."""
    return products.down(dy, B.mT), products.outer(products.weigh(z, factor), dy, r).mT


@dataclass(frozen=True)
class _Downs:
    """The A-halves of linears that share an input, each with a dropout of its own on it."""

    products: Products
    scaling: float
    dropout: float
    seeds: tuple[int, ...]

    def forward(self, x: torch.Tensor, *stacks: torch.Tensor) -> torch.Tensor:
        """``s A_k x`` of each stack, beside each other."""
        if not self.dropout:
            return self.products.down(x, self._joined(stacks)).mul_(self.scaling)
        parts = [
            self.products.down(drop(x, self.dropout, seed), A)
            for A, seed in zip(stacks, self.seeds, strict=True)
        ]
        return torch.cat(parts, dim=1).mul_(self._scaling)

    def backward(self, dz, x, dx, r: int, *stacks: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of the stacks; adds that of ``x`` to ``dx`` unless it is None."""
        dz = dz * self._scaling
        if not self.dropout:
            if dx is not None:
                self.products.up_(dx, dz, self._joined(stacks).mT)
            gradient = self.products.outer(dz, x, r)
            return list(gradient.chunk(len(stacks), dim=self.products.stack_dim))
        gradients = []
        parts = dz.chunk(len(stacks), dim=1)
        for part, A, seed in zip(parts, stacks, self.seeds, strict=True):
            gradients.append(self.products.outer(part, drop(x, self.dropout, seed), r))
            if dx is not None:
                back = self.products.up_(torch.zeros_like(dx), part, A.mT)
                dx.add_(drop(back, self.dropout, seed))
        return gradients

    @property
    def _scaling(self) -> float:
        return self.scaling / (1 - self.dropout)

    def _joined(self, stacks):
        return stacks[0] if len(stacks) == 1 else torch.cat(stacks, self.products.stack_dim)
