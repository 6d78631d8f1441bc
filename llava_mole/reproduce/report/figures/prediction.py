"""What a domain loses in a mixture against what was known before, a panel a predictor."""

from collections.abc import Sequence

from llava_mole.reproduce.report.content import Figure, interval, signed
from llava_mole.reproduce.report.figures.style import (
    BLUE,
    DARK,
    ORANGE,
    PURPLE,
    RED,
    SMALL,
    TINY,
    finish,
    pyplot,
)
from llava_mole.reproduce.report.prediction import Correlation, Point, correlation, predictors_of

_COLOURS = {"general": BLUE, "document": ORANGE, "biomedicine": PURPLE}
_FULL, _SHORT = "o", "^"


def prediction(points: Sequence[Point], label: str) -> Figure | None:
    """A scatter plot for each predictor; None without a point that has one."""
    names = predictors_of(points)
    if not names:
        return None
    with pyplot() as plt:
        figure, axes = plt.subplots(
            1,
            len(names),
            figsize=(0.8 + 2.6 * len(names), 3.3),
            layout="constrained",
            sharey=True,
            squeeze=False,
        )
        for axis, name in zip(axes[0], names, strict=True):
            _panel(axis, [point for point in points if name in point.predictors], name)
        axes[0, 0].set_ylabel("mixture − single domain, points", fontsize=SMALL)
        handles = {}
        for axis in axes[0]:
            found, labels = axis.get_legend_handles_labels()
            handles.update(zip(labels, found, strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
        png = finish(figure, label)
    caption = (
        "Each mark is a domain in a plain LoRA's mixture, its score less that of the same LoRA on "
        "the domain alone, mean over seeds with its interval. If what is on the axis predicted "
        "losses, marks would rise from left to right. Marks share runs: they are fewer than they "
        "look."
    )
    title = "Which mixtures lose: what was known before, against what came out"
    return Figure("prediction", title, caption, png)


def _panel(axis, points: Sequence[Point], name: str) -> None:
    for point in points:
        source = point.domain.removesuffix("-short")
        arms = [[point.loss.value - point.loss.low], [point.loss.high - point.loss.value]]
        axis.errorbar(
            point.predictors[name],
            point.loss.value,
            yerr=arms,
            fmt=_FULL if source == point.domain else _SHORT,
            markersize=4,
            linewidth=0.7,
            color=_COLOURS.get(source, RED),
            label=point.domain,
        )
    axis.axhline(0, color=DARK, linewidth=0.8, linestyle="--", zorder=0.5)
    head, _, place = name.partition(", ")
    head, _, more = (name if not place else f"{head}: {place}").partition(": ")
    axis.set_xlabel(f"{head}\n{more}", fontsize=TINY)
    axis.set_title(_said(correlation(points, name)), fontsize=SMALL)


def _said(found: Correlation) -> str:
    if found.value is None:
        return f"{found.points} points"
    text = f"ρ = {signed(found.value)}"
    if found.low is not None and found.high is not None:
        text += f" {interval(found.low, found.high, sign=True)}"
    return f"{text}\n{found.points} points, {found.mixtures} mixtures"
