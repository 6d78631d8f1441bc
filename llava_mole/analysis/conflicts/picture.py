"""Measured conflicts as a picture."""

import math
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from llava_mole.analysis.conflicts.breakdown import Conflicts
from llava_mole.analysis.conflicts.cosine import Cosines
from llava_mole.analysis.conflicts.drawing import INK, diverging, heading, save
from llava_mole.analysis.conflicts.measure import Measurement
from llava_mole.analysis.conflicts.table import lowest_pairs

# Pairs that get a curve and a map of their own.
_PAIRS = 6
# A larger matrix has no room for intervals.
_INTERVALS = 4
# Characters of a line of the title.
_TITLE = 125
_PLURAL = {"domain": "domains", "dataset": "data sets"}


def draw_conflicts(found: Measurement, file: str | os.PathLike[str]) -> None:
    """Draws the overall matrix, curves by layer, linears, and a map of cells for each pair.

    Args:
        found: what was measured.
        file: picture to write, replaced in one step; ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ValueError: another suffix.
    """
    save(lambda pyplot: _conflicts(pyplot, found), file)


def _conflicts(pyplot, found: Measurement):
    parts = found.conflicts
    pairs = lowest_pairs(parts.headline, _PAIRS)
    linears = list(parts.linears)
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    side = max(3.4, 0.75 * len(parts.names) + 1.6)
    cell_height = 0.55 + 0.26 * len(linears)
    figure = pyplot.figure(
        figsize=(12.5, side + 0.9 + rows * cell_height + 0.5), layout="constrained"
    )
    top, bottom = figure.subfigures(2, 1, height_ratios=[side + 0.6, rows * cell_height + 0.5])
    colours = dict(zip(pairs, pyplot.get_cmap("tab10").colors, strict=False))
    left, middle, right = top.subplots(1, 3, width_ratios=[1.15, 1.1, 1])
    _matrix(left, parts)
    _curves(middle, parts, colours)
    _linears(right, parts, colours)
    handles, labels = middle.get_legend_handles_labels()
    top.legend(
        handles,
        labels,
        loc="outside lower right",
        ncols=min(3, len(pairs)),
        frameon=False,
        fontsize=9,
    )
    top.suptitle(_title(found), fontsize=11, fontweight="bold", x=0.012, ha="left")
    _cells(bottom, parts, pairs, columns)
    return figure


def _title(found: Measurement) -> str:
    about = found.about
    adapter = about["adapter"]
    kind = "plain LoRA" if adapter["type"] == "lora" else f"MoLE, K = {adapter['num_experts']},"
    return textwrap.fill(
        f"Cosine between the {_PLURAL[about['by']]}' mean gradients: {kind} r = {adapter['r']}, "
        f"weights {about['weights']}, {about['batches']} × {about['batch_size']} samples each",
        _TITLE,
    )


def _matrix(axis, parts: Conflicts) -> None:
    """The headline matrix; a domain's own agreement of halves on the diagonal."""
    found, names = parts.headline, parts.names
    count = len(names)
    shown = found.value.copy()
    np.fill_diagonal(shown, math.nan)
    axis.imshow(shown, cmap=diverging(), vmin=-1, vmax=1)
    for a in range(count):
        for b in range(count):
            text, size = _annotation(found, a, b)
            dark = a != b and abs(np.nan_to_num(shown[a, b])) > 0.6
            axis.text(
                b,
                a,
                text,
                ha="center",
                va="center",
                fontsize=size,
                color="white" if dark else INK,
                linespacing=1.35,
            )
    axis.set_xticks(range(count), names, rotation=0 if count < 4 else 30, fontsize=9)
    axis.set_yticks(range(count), names, fontsize=9, rotation=90 if count < 4 else 0, va="center")
    axis.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)
    weights = "adapter" if "adapter" in parts.overall else "all that trains"
    heading(axis, f"Overall, {weights}")
    axis.set_xlabel("diagonal: two halves of its own batches, 1 without noise", fontsize=8)


def _annotation(found: Cosines, a: int, b: int) -> tuple[str, float]:
    small = 8 if len(found.names) > 4 else 9.5
    if a == b:
        return f"halves\n{found.halves[a]:.2f}", small - 1.5
    if math.isnan(found.value[a, b]):
        return "undecided", small - 1.5
    if len(found.names) > _INTERVALS:
        return f"{found.value[a, b]:+.2f}", small
    interval = f"[{found.low[a, b]:+.2f}, {found.high[a, b]:+.2f}]"
    return f"{found.value[a, b]:+.2f}\n{interval}", small - 0.5


def _curves(axis, parts: Conflicts, colours: dict) -> None:
    """Cosine over layers with its interval, a line for each pair."""
    layers = np.array(list(parts.layers))
    spread = min(0.5, 0.12 * len(colours))
    for number, (pair, colour) in enumerate(colours.items()):
        offset = (number - (len(colours) - 1) / 2) / len(colours) * spread
        value, low, high = (
            np.array([getattr(parts.layers[layer], name)[pair] for layer in layers.tolist()])
            for name in ("value", "low", "high")
        )
        axis.vlines(layers + offset, low, high, color=colour, linewidth=1.5, alpha=0.5)
        label = " – ".join(parts.names[i] for i in pair)
        axis.plot(layers + offset, value, color=colour, marker="o", markersize=4, label=label)
    axis.set_xticks(layers[:: max(1, len(layers) // 8)])
    axis.set_xlabel("decoder layer", fontsize=8)
    _zero(axis, "horizontal")
    heading(axis, "By layer, 95 % interval")


def _linears(axis, parts: Conflicts, colours: dict) -> None:
    """Cosine of each linear, of A and B and of the projector, with intervals."""
    groups: list[tuple[str, Cosines]] = list(parts.linears.items())
    if len(parts.factors) > 1:
        groups += [(f"all {name}", found) for name, found in parts.factors.items()]
    if "projector" in parts.overall and "adapter" in parts.overall:
        groups.append(("projector", parts.overall["projector"]))
    spread = 0.6 / max(len(colours), 1)
    for number, (pair, colour) in enumerate(colours.items()):
        offset = (number - (len(colours) - 1) / 2) * spread
        for place, (_, found) in enumerate(groups):
            if not math.isnan(found.value[pair]):
                axis.plot(
                    [found.low[pair], found.high[pair]],
                    [place + offset] * 2,
                    color=colour,
                    linewidth=1.5,
                    alpha=0.6,
                    solid_capstyle="butt",
                )
                axis.plot(found.value[pair], place + offset, "o", color=colour, markersize=4)
    axis.set_yticks(range(len(groups)), [name for name, _ in groups], fontsize=8.5)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    for place in range(1, len(groups)):
        axis.axhline(place - 0.5, color="#eeeeee", linewidth=0.7)
    _zero(axis, "vertical")
    heading(axis, "By linear, 95 % interval")


def _cells(figure, parts: Conflicts, pairs: Sequence[tuple[int, int]], columns: int) -> None:
    """A map of layers × linears for each pair; a dot where the interval contains 0."""
    layers, linears = list(parts.layers), list(parts.linears)
    rows = -(-len(pairs) // columns)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    image: Any = None
    for axis in axes.flat[len(pairs) :]:
        axis.set_visible(False)
    for pair, axis in zip(pairs, axes.flat, strict=False):
        grid = np.full((len(linears), len(layers)), math.nan)
        open_cells = []
        for (layer, linear), found in parts.cells.items():
            place = (linears.index(linear), layers.index(layer))
            grid[place] = found.value[pair]
            if found.low[pair] <= 0 <= found.high[pair]:
                open_cells.append(place)
        image = axis.imshow(grid, cmap=diverging(), vmin=-1, vmax=1, aspect="auto")
        if open_cells:
            y, x = zip(*open_cells, strict=True)
            axis.plot(x, y, ".", color="#777777", markersize=2.5)
        axis.set_xticks(
            np.arange(len(layers))[:: max(1, len(layers) // 8)],
            layers[:: max(1, len(layers) // 8)],
            fontsize=8,
        )
        axis.set_yticks(range(len(linears)), linears, fontsize=8)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        heading(axis, " – ".join(parts.names[i] for i in pair))
    for axis in axes[-1]:
        axis.set_xlabel("decoder layer", fontsize=8)
    bar = figure.colorbar(image, ax=axes.ravel().tolist(), fraction=0.03, pad=0.01)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label("cosine", fontsize=8)
    note = "By layer and linear (dot: 0 lies within the interval; grey: undecided)"
    figure.suptitle(note, fontsize=9.5, x=0.012, ha="left", color=INK)


def _zero(axis, which: str) -> None:
    """A line at 0, no frame."""
    draw = axis.axhline if which == "horizontal" else axis.axvline
    draw(0, color=INK, linewidth=0.8)
    axis.tick_params(labelsize=8, length=2)
    axis.spines[["top", "right"]].set_visible(False)
