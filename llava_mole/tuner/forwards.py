"""Which images the tokens of an FFN belong to, also when its layer runs again for backward."""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

OUTSIDE = (
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
        ids: ``(T,)`` int64, sequence of each token, -1 on padding.
        images: ``(S, D)``, what the routers read; None: not known.
        missing: why they are not known, and what to do.
    """

    ids: torch.Tensor
    images: torch.Tensor | None
    missing: str = OUTSIDE


class Forwards:
    """The forward that runs, and those whose layers gradient checkpointing may still run again.

    A layer that runs again is given the very position embeddings that it was given before, which
    each forward makes anew: by them its forward is known, whatever ran since.
    """

    def __init__(self):
        self._running: Forward | None = None
        self._again: Forward | None = None
        self._by_position_embeddings = WeakIdKeyDictionary()

    def begin(self, forward: Forward) -> None:
        """A forward of the decoder starts."""
        self._running, self._again = forward, None

    def end(self) -> None:
        """It is over; its layers may run again."""
        self._running = None

    def enter_layer(self, position_embeddings: object) -> None:
        """A decoder layer runs, in a forward or again.

        Args:
            position_embeddings: its attention's argument of this name, cosines and sines, if any.
        """
        made = position_embeddings
        key = made[0] if isinstance(made, tuple | list) and made else None
        if self._running is None:
            unknown = Forward(torch.empty(0), None, _NO_ROTARY if key is None else OUTSIDE)
            found = None if key is None else self._by_position_embeddings.get(key)
            self._again = found or unknown
        elif key is not None:
            self._by_position_embeddings[key] = self._running

    def logits(self, router: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """A router's logits ``(T, K)`` of the tokens ``x (..., D)``, by their sequences' images.

        Raises:
            ValueError: If these are not known.
        """
        forward = self._running or self._again
        if forward is None:
            raise ValueError(f"route_by_image: {OUTSIDE}.")
        ids, images, missing = forward
        if images is None:
            raise ValueError(f"route_by_image: {missing}.")
        if x.numel() != len(ids) * x.shape[-1]:
            raise ValueError(f"route_by_image: {OUTSIDE}.")
        return router(images.to(x.device))[ids.clamp(min=0).to(x.device)]
