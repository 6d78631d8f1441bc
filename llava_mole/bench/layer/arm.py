"""What all arms have in common: an FFN whose output, balance loss and gradients are compared."""

from collections.abc import Iterator

import torch
from torch import nn

from llava_mole.bench.layer.weights import Weights

Result = tuple[torch.Tensor, torch.Tensor | None]  # output (1, T, D), balance loss if it has one


class Arm:
    """One way to compute an FFN with experts.

    Attributes:
        leaves: what is trained, under the names of `Weights.leaf`: stacked, or a list of experts.
    """

    def __init__(self, weights: Weights):
        self.leaves: dict[str, nn.Parameter | list[nn.Parameter]] = {}
        self._base = list(weights.base.values())

    def __call__(self, x: torch.Tensor) -> Result:
        """The FFN's output for ``x (1, T, D)``, and the balance loss times its coefficient."""
        raise NotImplementedError

    def train_step(self, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """Forward and backward pass, router and balance loss included.

        Args:
            x: ``(1, T, D)``, takes a gradient.
            dy: ``(1, T, D)``, gradient of the output.

        Returns:
            The output.
        """
        y, balance = self(x)
        if balance is None or not balance.requires_grad:
            y.backward(dy)
        else:
            torch.autograd.backward((y, balance), (dy, None))
        return y

    def trained(self) -> Iterator[nn.Parameter]:
        """All leaves."""
        for leaf in self.leaves.values():
            yield from [leaf] if isinstance(leaf, nn.Parameter) else leaf

    def parameters(self) -> Iterator[nn.Parameter]:
        """All leaves and the base's weights."""
        yield from self.trained()
        yield from self._base

    def forget_gradients(self) -> None:
        """As an optimizer's ``zero_grad``."""
        for leaf in self.trained():
            leaf.grad = None

    def gradients(self) -> dict[str, torch.Tensor]:
        """The last backward pass's gradient of every leaf, stacked; zeros where there was none."""
        found = {}
        for name, leaf in self.leaves.items():
            parts = [leaf] if isinstance(leaf, nn.Parameter) else leaf
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parts]
            found[name] = grads[0] if isinstance(leaf, nn.Parameter) else torch.stack(grads)
        return found
