"""Products of tokens with the matrices of their own experts, in three forms.

All forms offer the same. ``down`` and ``up_`` are the two halves of a LoRA and, with transposed
matrices, of its gradient; ``outer`` is the gradient of the matrices. Rows are tokens in the form's
own order, which ``sort`` enters and ``unsort`` leaves. ``weigh`` multiplies the rank-r activations
by how much of an expert a token gets. ``W`` is a stack ``(K, out, in)``, and nothing here is
differentiated by autograd.

Stacks of several linears that share an input are joined along ``stack_dim``; their activations then
stand beside each other in the last dimension.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch.nn import functional as F

# Above this many columns K*r the K-fold LoRA FLOPs of the masked form cost more than the sorted
# forms' gathers; a CPU, where FLOPs are dear and gathers cheap, gets there sooner.
MASKED_MAX_COLUMNS = 160
MASKED_MAX_COLUMNS_ON_CPU = 64

_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_GROUPED_ALIGNMENT_BYTES = 16


def order_of(choice: torch.Tensor) -> torch.Tensor:
    """``(T,)`` int64, tokens sorted by expert, in their own order within one."""
    return choice.argsort(stable=True)


def inverse_of(order: torch.Tensor) -> torch.Tensor:
    """``(T,)`` int64, undoes ``order``."""
    positions = torch.arange(order.numel(), device=order.device)
    return torch.empty_like(order).scatter_(0, order, positions)


def offsets_of(choice: torch.Tensor, num_experts: int) -> torch.Tensor:
    """``(K,)`` int32 on the tokens' device: where each expert's sorted tokens end."""
    tokens = torch.zeros(num_experts, dtype=torch.int64, device=choice.device)
    tokens.scatter_add_(0, choice, torch.ones_like(choice))
    return tokens.cumsum(0).to(torch.int32)


def grouped_obstacle(r: int, d_in: int, d_out: int, dtype: torch.dtype) -> str | None:
    """Names what keeps ``torch.nn.functional.grouped_mm`` from a linear of these sizes."""
    if dtype not in _GROUPED_DTYPES:
        return f"float32, bfloat16 or float16 experts, not {dtype}"
    multiple = _GROUPED_ALIGNMENT_BYTES // dtype.itemsize
    if any(size % multiple for size in (r, d_in, d_out)):
        return (
            f"r and the linear's features to be multiples of {multiple} in {dtype}, "
            f"not r={r}, in={d_in}, out={d_out}"
        )
    return None


class _Sorted:
    """What the two forms have in common whose tokens are sorted by expert."""

    stack_dim = 1

    @cached_property
    def inverse(self) -> torch.Tensor:
        """``(T,)`` int64, undoes ``order``."""
        return inverse_of(self.order)

    def sort(self, x: torch.Tensor) -> torch.Tensor:
        """``x (T, ...)`` in the order of experts."""
        return x.index_select(0, self.order)

    def unsort(self, x: torch.Tensor) -> torch.Tensor:
        """Undoes :meth:`sort`."""
        return x.index_select(0, self.inverse)

    def weigh(self, z: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
        """``z (T, r)`` times each token's factor ``(T,)`` in its own order; None: as it is."""
        return z if factor is None else z * self.sort(factor)[:, None].to(z.dtype)

    def factor_gradient(self, grad: torch.Tensor, z: torch.Tensor, r: int) -> torch.Tensor:
        """Gradient of the factor ``(T,)`` in at least float32, tokens in their own order."""
        exact = torch.promote_types(z.dtype, torch.float32)
        return self.unsort((grad.to(exact) * z).sum(-1))


@dataclass(frozen=True)
class Sliced(_Sorted):
    """Sorted, and an expert's tokens multiplied as one slice: the host knows where they end.

    Attributes:
        order: ``(T,)`` int64, of :func:`order_of`.
        ends: K numbers, of :func:`offsets_of`.
    """

    order: torch.Tensor
    ends: tuple[int, ...]

    def _slices(self) -> Iterator[tuple[int, slice]]:
        start = 0
        for k, end in enumerate(self.ends):
            yield k, slice(start, end)
            start = end

    def down(self, x: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        """``W_k x`` of every token: ``(T, out)``."""
        z = x.new_empty(len(x), W.shape[1])
        for k, tokens in self._slices():
            torch.mm(x[tokens], W[k].t(), out=z[tokens])
        return z

    def up_(self, y: torch.Tensor, z: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        """Adds ``W_k z`` to every token of ``y (T, out)``."""
        for k, tokens in self._slices():
            y[tokens].addmm_(z[tokens], W[k].t())
        return y

    def outer(self, z: torch.Tensor, x: torch.Tensor, r: int) -> torch.Tensor:
        """``z x^T`` summed over each expert's tokens: ``(K, out, d)``, zero without tokens."""
        total = x.new_empty(len(self.ends), z.shape[1], x.shape[1])
        for k, tokens in self._slices():
            torch.mm(z[tokens].t(), x[tokens], out=total[k])
        return total


@dataclass(frozen=True)
class Grouped(_Sorted):
    """Sorted, and all experts in one grouped product, whose ends stay on the device.

    Attributes:
        order: ``(T,)`` int64, of :func:`order_of`.
        ends: ``(K,)`` int32, of :func:`offsets_of`.
    """

    order: torch.Tensor
    ends: torch.Tensor

    def down(self, x: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        """``W_k x`` of every token: ``(T, out)``."""
        return F.grouped_mm(x, W.mT, offs=self.ends)

    def up_(self, y: torch.Tensor, z: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        """Adds ``W_k z`` to every token of ``y (T, out)``."""
        return y.add_(F.grouped_mm(z, W.mT, offs=self.ends))

    def outer(self, z: torch.Tensor, x: torch.Tensor, r: int) -> torch.Tensor:
        """``z x^T`` summed over each expert's tokens: ``(K, out, d)``, zero without tokens."""
        total = F.grouped_mm(z.t(), x, offs=self.ends)
        has_tokens = self.ends.diff(prepend=self.ends.new_zeros(1)) > 0
        # Nothing is documented about what a group of length zero leaves there.
        return torch.where(has_tokens[:, None, None], total, 0)


@dataclass(frozen=True)
class Masked:
    """All experts for all tokens, as two dense products; the factor silences the others.

    Attributes:
        num_experts: K.
    """

    num_experts: int

    stack_dim: ClassVar[int] = 0

    def sort(self, x: torch.Tensor) -> torch.Tensor:
        """``x``: no token moves."""
        return x

    def unsort(self, x: torch.Tensor) -> torch.Tensor:
        """``x``: no token moves."""
        return x

    def weigh(self, z: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """``z (T, K*r)`` times the factor ``(T, K)`` of every expert."""
        z = z.unflatten(1, (self.num_experts, -1))
        return (z * factor[:, :, None].to(z.dtype)).flatten(1)

    def factor_gradient(self, grad: torch.Tensor, z: torch.Tensor, r: int) -> torch.Tensor:
        """Gradient of the factor ``(T, K)`` in at least float32."""
        exact = torch.promote_types(z.dtype, torch.float32)
        return (grad.to(exact) * z).unflatten(1, (-1, r)).sum(-1)

    def down(self, x: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        """``W_k x`` of every token and expert: ``(T, K*out)``."""
        return x @ W.flatten(0, 1).t()

    def up_(self, y: torch.Tensor, z: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        """Adds the sum over experts of ``W_k z`` to every token of ``y (T, out)``."""
        return y.addmm_(z, W.mT.flatten(0, 1))

    def outer(self, z: torch.Tensor, x: torch.Tensor, r: int) -> torch.Tensor:
        """``z x^T`` summed over tokens: ``(K, r, d)``."""
        return (z.t() @ x).unflatten(0, (-1, r))


Products = Sliced | Grouped | Masked


def products_for(
    choice: torch.Tensor, A_in: torch.Tensor, A_inside: torch.Tensor, form: str | None = None
) -> Products:
    """The form for an FFN's tokens and experts.

    Args:
        choice: ``(T,)`` int64, each token's expert.
        A_in: ``(K, r, D)``, of the linears that read the FFN's input.
        A_inside: ``(K, r, F)``, of the one that reads its hidden layer.
        form: ``"sliced"``, ``"grouped"`` or ``"masked"``; None chooses.

    Raises:
        ValueError: If the form is unknown or cannot compute these sizes or dtypes.
    """
    K, r, D = A_in.shape
    obstacle = grouped_obstacle(r, D, A_inside.shape[2], A_in.dtype)
    if form is None:
        if K == 1:  # nothing to sort
            form = "masked"
        elif choice.device.type == "cpu":
            form = "sliced"
        else:
            form = "masked" if K * r <= MASKED_MAX_COLUMNS or obstacle else "grouped"
    if form == "masked":
        return Masked(K)
    if form == "sliced":
        return Sliced(order_of(choice), tuple(offsets_of(choice, K).tolist()))
    if form != "grouped":
        raise ValueError(f"form={form!r} is unknown; use 'sliced', 'grouped' or 'masked'.")
    if obstacle:
        raise ValueError(f"form='grouped' needs {obstacle}.")
    return Grouped(order_of(choice), offsets_of(choice, K))
