"""Stacked LoRA experts of one linear and the ways to compute them (LLaVA-MoLE, Eq. 4-5)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from llava_mole.mole.dispatch import Dispatch


def lora_experts(
    x: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    dispatch: Dispatch,
    scaling: float,
) -> torch.Tensor:
    """What the experts add to one linear's output, ``g * scaling * B_k A_k x`` (Eq. 5).

    ``k`` and ``g`` are the token's own, from ``dispatch``; dense routing sums over all experts with
    the softmax as weights. Gate and scaling are applied to the rank-r activations, never to the
    ``(T, d_out)`` tensor, except in the loop path, which for one expert is PEFT's LoRA operation by
    operation. An expert without tokens gets a zero gradient, not None.

    Args:
        x: ``(T, d_in)`` input of the linear.
        A: ``(K, r, d_in)`` down-projections.
        B: ``(K, d_out, r)`` up-projections.
        dispatch: Where the tokens go, shared by the FFN's linears.
        scaling: ``lora_alpha / r``.

    Returns:
        ``(T, d_out)`` in the dtype of the experts (autocast's under autocast).

    Raises:
        ValueError: If the path asked for cannot compute these sizes or dtypes.
    """
    _, r, d_in = A.shape
    path = dispatch.resolve(r, d_in, B.shape[1], _compute_dtype(x, A))
    return _PATHS[path](x, A, B, dispatch, scaling)


def _compute_dtype(x: torch.Tensor, A: torch.Tensor) -> torch.dtype:
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type) and A.dtype != torch.float64:
        return torch.get_autocast_dtype(device_type)
    return A.dtype


def _loop(x, A, B, dispatch, scaling):
    """One expert after the other; waits for the device, so it serves as the reference."""
    if dispatch.dense:
        outputs = [F.linear(F.linear(x, a), b) * scaling for a, b in zip(A, B, strict=True)]
        weights = dispatch.weights.to(outputs[0].dtype)
        return sum(weights[:, k, None] * y for k, y in enumerate(outputs))
    if len(A) == 1 and dispatch.gate is None:
        return F.linear(F.linear(x, A[0]), B[0]) * scaling
    tokens = [torch.nonzero(dispatch.choice == k).squeeze(1) for k in range(len(A))]
    outputs = []
    for a, b, token in zip(A, B, tokens, strict=True):
        y = F.linear(F.linear(x[token], a), b) * scaling
        if dispatch.gate is not None:
            y = y * dispatch.gate[token, None].to(y.dtype)
        outputs.append(y)
    return torch.cat(outputs)[torch.cat(tokens).argsort()]


def _masked(x, A, B, dispatch, scaling):
    """Two matrix products over all K*r columns, the columns of other experts weighted by zero."""
    K, r, _ = A.shape
    z = F.linear(x, A.flatten(0, 1))
    weights = (dispatch.weights * scaling).to(z.dtype)
    z = (z.unflatten(-1, (K, r)) * weights[:, :, None]).flatten(-2)
    return F.linear(z, B.transpose(0, 1).flatten(1))


def _grouped(x, A, B, dispatch, scaling):
    """Tokens sorted by expert, then one grouped matrix product each for A and B."""
    dtype = _compute_dtype(x, A)  # autocast does not know grouped_mm
    sorted_x = dispatch.sort(x).to(dtype)
    z = F.grouped_mm(sorted_x, A.to(dtype).transpose(1, 2), offs=dispatch.offsets)
    factor = _factor(dispatch, scaling, dtype)
    z = z * (factor if dispatch.gate is None else factor[dispatch.order])
    y = F.grouped_mm(z, B.to(dtype).transpose(1, 2), offs=dispatch.offsets)
    return dispatch.unsort(y)


def _by_token(x, A, B, dispatch, scaling):
    """One token after the other, its own expert read in place; for few tokens on the CPU."""
    a, b = A.unbind(), B.unbind()
    z, y = x.new_empty(len(x), A.shape[1]), x.new_empty(len(x), B.shape[1])
    for k, token, row in zip(dispatch.experts, x.unbind(), z.unbind(), strict=True):
        torch.mv(a[k], token, out=row)
    z *= _factor(dispatch, scaling, x.dtype)
    for k, token, row in zip(dispatch.experts, z.unbind(), y.unbind(), strict=True):
        torch.mv(b[k], token, out=row)
    return y


def _gathered(x, A, B, dispatch, scaling):
    """Every token with a copy of its expert; for few tokens on a device, without waiting for it."""
    z = torch.bmm(A[dispatch.choice], x[:, :, None])[:, :, 0]
    z = z * _factor(dispatch, scaling, z.dtype)
    return torch.bmm(B[dispatch.choice], z[:, :, None])[:, :, 0]


def _factor(dispatch, scaling, dtype):
    """Scaling and gate of the tokens' own experts, as a number or ``(T, 1)``."""
    return scaling if dispatch.gate is None else (dispatch.gate * scaling)[:, None].to(dtype)


_PATHS = {
    "loop": _loop,
    "masked": _masked,
    "grouped": _grouped,
    "by_token": _by_token,
    "gathered": _gathered,
}


class LoraExperts(nn.Module):
    """The K LoRA experts of one linear of an FFN (LLaVA-MoLE, Eq. 5), stacked.

    Stacking gives every rank the same parameters whatever the routing, so data-parallel gradients
    and ZeRO's partitions never depend on which experts a batch visited.

    Args:
        in_features: Input features of the linear.
        out_features: Output features of the linear.
        num_experts: Number of experts K.
        r: Rank of each expert.
        scaling: Factor on the experts' output, ``lora_alpha / r``.
        dropout: Probability of LoRA dropout on the experts' input.
        device: Where the parameters are created.
        dtype: Dtype of the parameters.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_experts: int,
        r: int,
        scaling: float,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.A = nn.Parameter(torch.empty(num_experts, r, in_features, **factory))
        self.B = nn.Parameter(torch.empty(num_experts, out_features, r, **factory))
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.scaling = scaling
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, init: bool | str = True) -> None:
        """Initialises every expert as PEFT initialises a LoRA.

        Args:
            init: True: Kaiming-uniform A (``a=sqrt(5)``) and zero B; ``"gaussian"``: normal A with
                std ``1/r`` and zero B; False: Kaiming-uniform A and B, so that the adapter does
                something before training.
        """
        for a in self.A:
            if init == "gaussian":
                nn.init.normal_(a, std=1 / self.A.shape[1])
            else:
                nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        if init is False:
            for b in self.B:
                nn.init.kaiming_uniform_(b, a=math.sqrt(5))
        else:
            nn.init.zeros_(self.B)

    def forward(self, x: torch.Tensor, dispatch: Dispatch) -> torch.Tensor:
        """Adds nothing itself: returns the experts' output for ``x (T, in_features)``."""
        return lora_experts(self.dropout(x), self.A, self.B, dispatch, self.scaling)

    def extra_repr(self) -> str:
        """Shows the sizes in the module's printed form."""
        K, r, d_in = self.A.shape
        return (
            f"num_experts={K}, r={r}, in_features={d_in}, out_features={self.B.shape[1]}, "
            f"scaling={self.scaling}"
        )
