"""The paper's Figure 3, and the same by kind of token."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from llava_mole.analysis.routing.counts import Counts
from llava_mole.analysis.routing.drawing import (
    SMALL,
    TITLE,
    expert_style,
    legend,
    share_axis,
    shortened,
    stack,
)
from llava_mole.analysis.routing.samples import KINDS

_MANY_NAMES = 4
# Inches; of panels side by side.
_WIDEST = 13.0


class Load(Protocol):
    """What is drawn of a data set's routing; `Counts` is one."""

    @property
    def layers(self) -> Sequence[int]:
        """The N decoder layers."""

    @property
    def mean(self) -> torch.Tensor:
        """(N, K) each expert's share of the tokens."""

    @property
    def std(self) -> torch.Tensor | None:
        """(N, K) its standard deviation over sequences; None where it is not known."""


def draw_load(
    plt: Any,
    counts: Mapping[str, Load],
    places: Sequence[int],
    legend_at: str = "outside upper center",
) -> Any:
    """One panel a layer, one group of bars a data set, one bar an expert (the paper's Fig. 3).

    Args:
        plt: of `drawing.pyplot`.
        counts: data set name to its load.
        places: layers to show, by their place among those that have experts.
        legend_at: where a figure that gets a title has room for the experts' names.

    Returns:
        The figure.
    """
    first = next(iter(counts.values()))
    experts = first.mean.shape[-1]
    group = max(0.62, 0.085 * experts + 0.2)
    width = max(1.9, 0.35 + group * len(counts))
    columns = max(1, min(4, len(places), int(_WIDEST / width)))
    rows = -(-len(places) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(4.6, width * columns + 0.5), 1.75 * rows + 0.75),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(places) :]:
        axis.set_visible(False)
    bar = 0.82 / experts
    means = [(one.mean, one.std) for one in counts.values()]
    known = all(std is not None for _, std in means)
    tops = [mean + std if known else mean for mean, std in means]
    highest = max(float(top[list(places)].max()) for top in tops)
    for place, axis in zip(places, axes.flat, strict=False):
        axis.axhline(1 / experts, color="#777777", linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        for expert in range(experts):
            axis.bar(
                [n + (expert - (experts - 1) / 2) * bar for n in range(len(counts))],
                [float(mean[place, expert]) for mean, _ in means],
                bar,
                yerr=[float(std[place, expert]) for _, std in means] if known else None,
                error_kw={"elinewidth": 0.7, "capsize": min(2, 20 * bar), "capthick": 0.7},
                **expert_style(expert),
            )
        axis.set_title(f"layer {first.layers[place]}", fontsize=TITLE)
        crowded = len(counts) > _MANY_NAMES or max(map(len, counts)) > 12
        turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axis.set_xticks(range(len(counts)), map(shortened, counts), fontsize=SMALL, **turned)
        axis.tick_params(axis="x", length=0)
        axis.set_xlim(-0.55, len(counts) - 0.45)
        # A deviation may reach beyond the whole; it is shown as it is.
        share_axis(axis, max(1.03 * highest, 1.2 / experts))
    figure.supylabel("tokens, %", fontsize=8)
    legend(figure, experts, loc=legend_at)
    return figure


def draw_kinds(plt: Any, counts: Mapping[str, Counts]) -> Any:
    """One row of panels a data set, one column a kind of token, one stacked bar a layer.

    Args:
        plt: of `drawing.pyplot`.
        counts: data set name to its counts.

    Returns:
        The figure.
    """
    first = next(iter(counts.values()))
    layers, experts = first.layers, first.tokens.shape[-1]
    figure, axes = plt.subplots(
        len(counts),
        len(KINDS),
        figsize=(3 * max(1.9, 0.13 * len(layers) + 0.7) + 0.5, 1.45 * len(counts) + 0.8),
        sharey=True,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for row, (name, one) in zip(axes, counts.items(), strict=True):
        row[0].set_ylabel(f"{shortened(name)}\ntokens, %", fontsize=8)
        for axis, kind, load in zip(row, KINDS, one.by_kind, strict=True):
            tokens = one.num_tokens[kind]
            stack(axis, load.nan_to_num(), layers)
            axis.set_title(f"{kind} ({tokens:,} tokens)", fontsize=8)
            if not tokens:
                axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", color="#777777")
    for axis in axes[-1]:
        axis.set_xlabel("layer", fontsize=8)
    legend(figure, experts)
    return figure
