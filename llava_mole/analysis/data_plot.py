"""The statistics of a mixture as one picture: lengths, images per sample, shares."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from llava_mole.analysis.data_stats import Columns
from llava_mole.analysis.plotting import check_suffix, pyplot, save

_BINS = 60
_NARROWEST = 3
_MANY = 4
_GREYS = ("#d9d9d9", "#4c78a8", "#72a0c8", "#a3c4de", "#cfe1ef")


def draw(
    data: Sequence[Columns],
    file: str | os.PathLike[str],
    max_length: int | None = None,
    drawn: Mapping[str, int] | None = None,
) -> None:
    """Draws one panel for each figure that is known, replacing ``file`` in one step.

    Args:
        data: the data sets.
        file: picture to write; ``.png``, ``.svg`` or ``.pdf``.
        max_length: the model's longest sequence, drawn as a line.
        drawn: samples of each data set in an epoch of the mixture; None where there is none.

    Raises:
        ValueError: another suffix.
    """
    check_suffix(file, "--plot")
    with pyplot({}) as plt:
        save(_figure(plt, data, max_length, drawn), Path(file), dpi=150)


def _figure(pyplot, data: Sequence[Columns], max_length: int | None, drawn):
    counted = [item for item in data if item.lengths is not None and len(item.lengths)]
    panels = [_images] + ([_shares] if drawn else [])
    rows = max(len(data), 2)
    height = 0.8 + 0.34 * rows + (3.1 if counted else 0)
    figure = pyplot.figure(figsize=(9.5, height), layout="constrained")
    grid = figure.add_gridspec(
        2 if counted else 1,
        len(panels),
        height_ratios=[3.1, 0.8 + 0.34 * rows] if counted else None,
    )
    # A colour stays a data set's own in all panels.
    palette = pyplot.get_cmap("tab10" if len(data) <= 10 else "tab20")
    colours = {item.name: palette(index % palette.N) for index, item in enumerate(data)}
    if counted:
        _lengths(figure.add_subplot(grid[0, :]), counted, colours, max_length)
    for place, panel in enumerate(panels):
        panel(figure.add_subplot(grid[-1, place]), data, colours, drawn)
    return figure


def _lengths(axis, data: Sequence[Columns], colours, max_length: int | None) -> None:
    """Length histograms, each data set's area 1 over the logarithm of the length."""
    low = max(1, min(int(item.lengths.min()) for item in data))
    high = max(int(item.lengths.max()) for item in data)
    high = max(high, low + 1)
    # No bin narrower than a few tokens: whole numbers would fall into some and miss others.
    bins = np.log((high + 1) / low) / np.log1p(_NARROWEST / low)
    edges = np.unique(np.geomspace(low, high + 1, int(np.clip(bins, 1, _BINS)) + 1).round())
    for item in data:
        counts, _ = np.histogram(item.lengths, edges)
        share = 100 * counts / len(item.lengths)
        axis.stairs(share, edges, color=colours[item.name], linewidth=1.6, label=_label(item))
        axis.stairs(share, edges, color=colours[item.name], fill=True, alpha=0.12)
    if max_length is not None:
        axis.axvline(max_length, color="#444444", linestyle="--", linewidth=1)
        axis.annotate(
            f"model_max_length {max_length:,} ",
            (max_length, 1),
            xycoords=("data", "axes fraction"),
            ha="right",
            va="top",
            rotation=90,
            fontsize=8,
            color="#444444",
        )
    axis.set_xscale("log")
    ticks = [t for t in (2 ** np.arange(20)).tolist() if low <= t <= max(high, max_length or 0)]
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel("tokens of a sample, image tokens included (log scale)", fontsize=9)
    axis.set_ylabel("% of the data set", fontsize=9)
    axis.set_title("Length", fontsize=10, loc="left", fontweight="bold")
    axis.legend(fontsize=8, frameon=False)
    _plain(axis, "y")


def _images(axis, data: Sequence[Columns], colours, drawn) -> None:
    """Share of samples with 0, 1, 2, ... images, stacked."""
    counts = np.stack(
        [np.bincount(np.minimum(d.num_images, _MANY), minlength=_MANY + 1) for d in data]
    )
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    places, left = np.arange(len(data)), np.zeros(len(data))
    for number in np.flatnonzero(counts.any(0)):
        label = f"{number}+" if number == _MANY else str(number)
        axis.barh(places, share[:, number], left=left, color=_GREYS[number], label=label)
        left += share[:, number]
    axis.set_xlim(0, 100)
    axis.set_xlabel("% of the samples", fontsize=9)
    axis.set_title("Images per sample", fontsize=10, loc="left", fontweight="bold")
    axis.legend(
        fontsize=8,
        frameon=False,
        ncols=5,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        handlelength=1,
        columnspacing=0.8,
        handletextpad=0.4,
        borderaxespad=0.1,
    )
    _names(axis, data)


def _shares(axis, data: Sequence[Columns], colours, drawn: Mapping[str, int]) -> None:
    """Share of each data set in an epoch."""
    counts = [drawn.get(item.name, 0) for item in data]
    share = [100 * count / max(sum(counts), 1) for count in counts]
    bars = axis.barh(range(len(data)), share, color=[colours[item.name] for item in data])
    axis.bar_label(bars, [f" {count:,}" for count in counts], fontsize=8)
    axis.set_xlim(0, 1.3 * max(share) or 1)
    axis.set_xlabel("% of an epoch's samples", fontsize=9)
    axis.set_title("In an epoch of the mixture", fontsize=10, loc="left", fontweight="bold")
    _names(axis, data)


def _names(axis, data: Sequence[Columns]) -> None:
    axis.set_yticks(range(len(data)), [_label(item) for item in data], fontsize=8)
    axis.invert_yaxis()
    axis.set_ylim(max(len(data), 2) - 0.4, -0.6)
    _plain(axis, "x")


def _label(item: Columns) -> str:
    """The data set's name; matplotlib leaves out what begins with an underscore."""
    name = item.name if len(item.name) <= 32 else f"…{item.name[-31:]}"
    return f" {name}" if name.startswith("_") else name


def _plain(axis, grid: str) -> None:
    axis.tick_params(labelsize=8, length=2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="#e5e5e5", linewidth=0.6)
    axis.set_axisbelow(True)
