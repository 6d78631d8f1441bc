"""Which images the tokens of an FFN belong to, also when its layer runs again for backward."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from llava_mole.tuner.image_cache import Pooled

_OUTSIDE = (
    "this FFN runs outside its model's forward, where its tokens' images are not known; call the "
    "whole model"
)
_NO_ROTARY = (
    "gradient checkpointing runs a layer again, and this decoder's attention gets no "
    "position_embeddings to know the forward by; turn gradient checkpointing off"
)


class Forward(NamedTuple):
    """What a forward of the decoder knows of its sequences' images.

    Attributes:
        rows: ``(T,)`` int64, sequence of each token; of padding, any.
        pooled: what the routers read of S sequences; None: not known.
        missing: why it is not known, and what to do.
    """

    rows: torch.Tensor
    pooled: Pooled | None
    missing: str = ""


class Forwards:
    """The forward that runs, and those whose layers gradient checkpointing may still run again.

    A layer that runs again is given the very position embeddings that it was given before, which
    each forward makes anew: by them its forward is known, whatever ran since.
    """

    def __init__(self):
        self._running: Forward | None = None
        self._again: Forward | None = None
        self._why_not_again = _OUTSIDE
        self._by_position_embeddings = WeakIdKeyDictionary()

    def begin(self, forward: Forward) -> None:
        """A forward of the decoder starts."""
        self._running, self._again, self._why_not_again = forward, None, _OUTSIDE

    def end(self) -> Forward | None:
        """It is over, and returned; its layers may run again."""
        ended, self._running = self._running, None
        return ended

    def enter_attention(self, position_embeddings: object) -> None:
        """A layer's attention runs, in a forward or again; its FFN follows.

        Args:
            position_embeddings: its argument of this name, cosines and sines; None without one.
        """
        if position_embeddings is None:
            self._why_not_again = _NO_ROTARY
        elif self._running is None:
            self._again = self._by_position_embeddings.get(position_embeddings[0])
        elif torch.is_grad_enabled():  # or there will be no backward
            self._by_position_embeddings[position_embeddings[0]] = self._running

    def logits(self, router: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """A router's logits ``(T, K)`` of the tokens ``x (..., D)``, by their sequences' images.

        Raises:
            ValueError: If these are not known.
        """
        forward = self._running or self._again
        if forward is None:
            raise ValueError(f"route_by_image: {self._why_not_again}.")
        rows, pooled, missing = forward
        if pooled is None:
            raise ValueError(f"route_by_image: {missing}.")
        if x.numel() != len(rows) * x.shape[-1]:
            raise ValueError(f"route_by_image: {_OUTSIDE}.")
        return router(pooled.images.to(x.device))[rows.to(x.device)]
