"""The transfer matrix as a picture."""

import os
from collections.abc import Sequence

import numpy as np

from llava_mole.analysis.conflicts.drawing import INK, diverging, heading, save
from llava_mole.analysis.conflicts.transfer import MIX, Transfer


def draw_transfer(found: Transfer, file: str | os.PathLike[str]) -> None:
    """Draws scores (and, with a mixture, its losses) as annotated maps.

    Args:
        found: what was read.
        file: picture to write, replaced in one step; ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ValueError: another suffix.
    """
    save(lambda pyplot: _transfer(pyplot, found), file)


def _transfer(pyplot, found: Transfer):
    names = list(found.scores)
    values = np.array([[e.value for e in found.scores[name]] for name in names])
    mixed = MIX in found.scores
    width = max(3.4, 1.55 * len(found.columns) + 1.2)
    figure, axes = pyplot.subplots(
        1,
        2 if mixed else 1,
        figsize=((2 if mixed else 1) * width, 0.62 * len(names) + 1.6),
        squeeze=False,
        layout="constrained",
    )
    best = values[: len(found.runs)].max(axis=0)
    spread = max(float(np.abs(values - best).max()), 1e-9)
    texts = [[_estimate(e, "") for e in found.scores[name]] for name in names]
    _map_of(axes[0, 0], values - best, spread, texts, names, found.columns)
    axes[0, 0].set_ylabel("trained on", fontsize=8)
    heading(axes[0, 0], "Score in %; colour: against the best single domain")
    if mixed:
        losses = [found.loss(name) for name in found.runs]
        values = np.array([[e.value for e in row] for row in losses])
        texts = [[_estimate(e, "+") for e in row] for row in losses]
        spread = max(float(np.abs(values).max()), 1e-9)
        _map_of(axes[0, 1], values, spread, texts, list(found.runs), found.columns)
        heading(axes[0, 1], "Mixture minus the single domain, in points")
    return figure


def _map_of(axis, values, spread: float, texts, rows: Sequence[str], columns: Sequence[str]):
    axis.imshow(values, cmap=diverging(), vmin=-spread, vmax=spread, aspect="auto")
    for a, line in enumerate(texts):
        for b, text in enumerate(line):
            dark = abs(values[a, b]) > 0.6 * spread
            axis.text(
                b,
                a,
                text,
                ha="center",
                va="center",
                fontsize=8.5,
                linespacing=1.3,
                color="white" if dark else INK,
            )
    axis.set_xticks(range(len(columns)), columns, rotation=0 if len(columns) < 4 else 20)
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0, labelsize=8.5)
    axis.spines[:].set_visible(False)


def _estimate(estimate, sign: str) -> str:
    return f"{estimate.value:{sign}.1f}\n[{estimate.low:{sign}.1f}, {estimate.high:{sign}.1f}]"
