"""How differently data sets are routed, layer by layer, with the level of chance."""

from typing import Any

import torch

from llava_mole.analysis.routing.comparison import Comparison, Figure
from llava_mole.analysis.routing.drawing import SMALL, TITLE, below, shortened
from llava_mole.analysis.routing.palette import colour

_LINES = ("-", "--", "-.", ":")
_MARKS = "osD^vP*X"


def draw_comparison(plt: Any, comparison: Comparison) -> Any:
    """Left the Jensen-Shannon divergence of every two data sets, right the mutual information.

    Args:
        plt: of `drawing.pyplot`.
        comparison: what to draw.

    Returns:
        The figure.
    """
    layers = comparison.layers
    wide = max(3.2, 0.14 * len(layers) + 1.2)
    figure, (left, right) = plt.subplots(1, 2, figsize=(2 * wide, 3.5), layout="constrained")
    places = range(len(layers))
    several = len(comparison.pairs) > 1
    if several:
        left.plot(
            places,
            comparison.jensen_shannon.value,
            color="black",
            linewidth=2,
            label="all data sets",
        )
    for index, ((a, b), bits) in enumerate(comparison.pairs.items()):
        left.plot(
            places,
            bits,
            color=colour(index),
            linestyle=_LINES[index // 8 % len(_LINES)],
            marker=_MARKS[index % len(_MARKS)],
            markersize=3.5,
            linewidth=1.1,
            label=f"{shortened(a, 16)} and {shortened(b, 16)}",
        )
    left.set_title("Jensen-Shannon divergence", fontsize=TITLE, loc="left")
    right.set_title("mutual information", fontsize=TITLE, loc="left")
    _information(right, comparison.information)
    for axis, figures in ((left, comparison.jensen_shannon), (right, comparison.information)):
        two = "; pairs 1" if axis is left and several else ""
        axis.set_ylabel(f"bits, of at most {figures.maximum:.2f}{two}", fontsize=8)
    for axis in (left, right):
        every = -(-len(layers) // 12)
        ticks = list(range(0, len(layers), every))
        axis.set_xticks(ticks, [str(layers[tick]) for tick in ticks], fontsize=SMALL)
        axis.set_xlabel("layer", fontsize=8)
        axis.grid(axis="y", color="#e3e3e3", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.set_ylim(0, 1.08 * max(axis.get_ylim()[1], 1e-3))
        below(axis, columns=2 if wide < 5 else 3, gap=0.16)
    return figure


def _information(axis: Any, figure: Figure) -> None:
    places = torch.arange(len(figure.value))
    axis.fill_between(
        places,
        figure.chance.quantile(0.05, dim=0),
        figure.chance_95,
        color="#bbbbbb",
        linewidth=0,
        label="shuffled labels, 5 to 95 %",
    )
    axis.plot(places, figure.chance_mean, color="#777777", linewidth=1, linestyle="--")
    axis.plot(
        places,
        figure.value,
        color=colour(0),
        marker="o",
        markersize=3.5,
        linewidth=1.4,
        label="measured",
    )
