"""How the tokens of one FFN reach their experts; built once per FFN, shared by its linears."""

from functools import cached_property

import torch

from llava_mole.mole.products import (
    MASKED_MAX_COLUMNS,
    MASKED_MAX_COLUMNS_ON_CPU,
    grouped_obstacle,
    inverse_of,
    offsets_of,
    order_of,
)
from llava_mole.mole.router import Route

ROUTINGS = ("top1", "dense")
DISPATCH_PATHS = ("auto", "fused", "loop", "masked", "grouped")

# Up to this many tokens, an inference on the CPU takes them one by one. In half precision the fixed
# cost of a product there is that of reading many tokens' experts.
BY_TOKEN_MAX_TOKENS = 16
BY_TOKEN_DTYPES = (torch.float32, torch.float64)


def _permute(x: torch.Tensor, order: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    # Where nothing is differentiated the Function's own overhead would exceed a small gather's.
    return _Permute.apply(x, order, inverse) if torch.is_grad_enabled() else x[order]


class _Permute(torch.autograd.Function):
    """``x[order]`` for a permutation; its gradient is a gather too, no atomic adds."""

    @staticmethod
    def forward(ctx, x, order, inverse):
        ctx.save_for_backward(order, inverse)
        return x[order]

    @staticmethod
    def backward(ctx, grad):
        order, inverse = ctx.saved_tensors
        return _Permute.apply(grad, inverse, order), None, None


class Dispatch:
    """The expert choice of T tokens in the forms that the compute paths need.

    Everything is made on first use and kept for the FFN's other linears, and nothing here makes the
    host wait for a device (the loop path, a reference, does).

    Without gradients, ``"auto"`` also knows two paths for the few tokens of a decode step, where
    the other experts' weights would cost more to read than the tokens to multiply: ``"by_token"``
    on the CPU and ``"gathered"`` on devices.

    Args:
        route: What the router said.
        routing: ``"top1"`` (LLaVA-MoLE, Eq. 3-5) or ``"dense"`` (softmax-weighted sum of all
            experts, the paper's Table 5).
        path: ``"auto"`` or, here the same, ``"fused"``; ``"loop"`` (the reference; for one expert
            it is PEFT's LoRA operation by operation), ``"masked"`` (all experts' columns in two
            matrix products, the others' columns zeroed) or ``"grouped"`` (tokens sorted by expert
            once per FFN, then grouped matrix products). Dense routing has no sort: there
            ``"grouped"`` means ``"masked"``.
    """

    def __init__(self, route: Route, routing: str = "top1", path: str = "auto"):
        if routing not in ROUTINGS:
            raise ValueError(f"routing={routing!r} is unknown; use one of {ROUTINGS}.")
        if path not in DISPATCH_PATHS:
            raise ValueError(f"dispatch={path!r} is unknown; use one of {DISPATCH_PATHS}.")
        self.route = route
        self.choice = route.choice
        self.probs = route.probs
        self.gate = route.gate
        self.num_experts = route.probs.shape[-1]
        self.dense = routing == "dense"
        self.path = path
        self._sorted: tuple[torch.Tensor, torch.Tensor] | None = None

    def resolve(self, r: int, d_in: int, d_out: int, dtype: torch.dtype) -> str:
        """Says which path computes a linear of these sizes.

        Args:
            r: Rank of the experts.
            d_in: Input features of the linear.
            d_out: Output features of the linear.
            dtype: Dtype the experts compute in.

        Returns:
            ``"loop"``, ``"masked"``, ``"grouped"``, ``"by_token"`` or ``"gathered"``.

        Raises:
            ValueError: If ``path="grouped"`` was asked for and torch cannot do it.
        """
        if self.path == "loop":
            return "loop"
        if self.dense or self.path == "masked":
            return "masked"
        obstacle = grouped_obstacle(r, d_in, d_out, dtype)
        if self.path == "grouped":
            if obstacle:
                raise ValueError(f"dispatch='grouped' needs {obstacle}; use dispatch='auto'.")
            return "grouped"
        if self.num_experts == 1 and self.gate is None:
            return "loop"
        on_cpu = self.choice.device.type == "cpu"
        if not torch.is_grad_enabled():  # else every expert needs a gradient, if only of zeros
            tokens = len(self.choice)
            if on_cpu and tokens <= BY_TOKEN_MAX_TOKENS and dtype in BY_TOKEN_DTYPES:
                return "by_token"
            if not on_cpu and tokens <= self.num_experts:
                return "gathered"
        most = MASKED_MAX_COLUMNS_ON_CPU if on_cpu else MASKED_MAX_COLUMNS
        if self.num_experts * r <= most or obstacle:
            return "masked"
        return "grouped"

    @cached_property
    def experts(self) -> list[int]:
        """Each token's expert, on the host."""
        return self.choice.tolist()

    @cached_property
    def weights(self) -> torch.Tensor:
        """``(T, K)`` factor of every expert on every token: a one-hot row for top-1 routing."""
        if self.dense:
            return self.probs
        one_hot = torch.zeros_like(self.probs).scatter_(1, self.choice[:, None], 1)
        return one_hot if self.gate is None else one_hot * self.gate[:, None]

    @cached_property
    def order(self) -> torch.Tensor:
        """``(T,)`` int64, tokens sorted by expert, in their own order within one."""
        return order_of(self.choice)

    @cached_property
    def inverse(self) -> torch.Tensor:
        """``(T,)`` int64, undoes ``order``."""
        return inverse_of(self.order)

    @cached_property
    def offsets(self) -> torch.Tensor:
        """``(K,)`` int32 on the tokens' device: where each expert's sorted tokens end."""
        return offsets_of(self.choice, self.num_experts)

    def sort(self, x: torch.Tensor) -> torch.Tensor:
        """Sorts ``x (T, d)`` by expert; an input that several linears share is sorted once."""
        if self._sorted is None or self._sorted[0] is not x:
            self._sorted = (x, _permute(x, self.order, self.inverse))
        return self._sorted[1]

    def unsort(self, y: torch.Tensor) -> torch.Tensor:
        """Brings ``y (T, d)`` back to the tokens' own order."""
        return _permute(y, self.inverse, self.order)
