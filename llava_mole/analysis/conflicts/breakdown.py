"""Cosines overall, and by layer, linear and factor."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llava_mole.analysis.conflicts.cosine import Cosines, cosines
from llava_mole.analysis.conflicts.gradients import Grams
from llava_mole.analysis.conflicts.pieces import Piece


@dataclass(frozen=True)
class Conflicts:
    """Cosines between domains' gradients, of all weights and of groups of them.

    Attributes:
        overall: of the ``adapter``, the ``projector``, and ``all`` that trains.
        layers: by decoder layer, of the adapter.
        linears: by linear (``q_proj``, …; ``router`` for routers), of the adapter.
        factors: by LoRA factor, ``A`` and ``B``.
        cells: by layer and linear.
    """

    overall: dict[str, Cosines]
    layers: dict[int, Cosines]
    linears: dict[str, Cosines]
    factors: dict[str, Cosines]
    cells: dict[tuple[int, str], Cosines]

    @property
    def names(self) -> tuple[str, ...]:
        """The domains."""
        return next(iter(self.overall.values())).names

    @property
    def headline(self) -> Cosines:
        """Of the adapter; of all that trains where there is none."""
        return self.overall.get("adapter") or self.overall["all"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "overall": {name: found.to_dict() for name, found in self.overall.items()},
            "layers": {str(layer): found.to_dict() for layer, found in self.layers.items()},
            "linears": {name: found.to_dict() for name, found in self.linears.items()},
            "factors": {name: found.to_dict() for name, found in self.factors.items()},
            "cells": [
                {"layer": layer, "linear": linear, **found.to_dict()}
                for (layer, linear), found in self.cells.items()
            ],
        }


def conflicts(grams: Grams) -> Conflicts:
    """Estimates every group's cosines.

    Raises:
        ValueError: no piece has a gradient, or too few batches.
    """
    if not grams.pieces:
        raise ValueError("every gradient is exactly 0: nothing to compare")
    overall = {}
    if any(piece.is_adapter for piece in grams.pieces):
        overall["adapter"] = _of(grams, lambda piece: piece.is_adapter)
    if any(not piece.is_adapter for piece in grams.pieces):
        overall["projector"] = _of(grams, lambda piece: not piece.is_adapter)
    overall["all"] = _of(grams, lambda piece: True)
    factors = _by(grams, lambda piece: piece.factor or None)
    return Conflicts(
        overall,
        dict(sorted(_by(grams, lambda piece: piece.layer).items())),
        _by(grams, lambda piece: piece.linear),
        dict(sorted(factors.items())),
        _by(grams, lambda piece: None if piece.layer is None else (piece.layer, piece.linear)),
    )


def _by(grams: Grams, key: Callable[[Piece], Hashable]) -> dict[Any, Cosines]:
    """Cosines of the adapter's pieces by ``key``; pieces with the key None are left out."""
    sums: dict[Hashable, np.ndarray] = {}
    for piece, gram in zip(grams.pieces, grams.values, strict=True):
        name = key(piece)
        if piece.is_adapter and name is not None:
            sums[name] = sums[name] + gram if name in sums else gram
    return {name: cosines(gram, grams.names, grams.batches) for name, gram in sums.items()}


def _of(grams: Grams, wanted: Callable[[Piece], bool]) -> Cosines:
    return cosines(grams.of(wanted), grams.names, grams.batches)
