"""Figure 1: each domain's benchmark by what a model was trained on."""

from collections.abc import Sequence
from typing import Any

from llava_mole.reproduce.report.content import Figure, number
from llava_mole.reproduce.report.figures.style import (
    BLUE,
    DARK,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    RED,
    SMALL,
    TINY,
    arms,
    finish,
    pyplot,
)
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.singles import BASELINES

_ROWS = (
    *BASELINES.values(),
    "llava-mix-1-1-1",
    "llava-mix-x2-1-1-1",
    "llava-mix-equal-1-1-1",
    "llava-mole-1-1-1",
)
_COLOURS = {
    "llava-mix-1-1-1": ORANGE,
    "llava-mix-x2-1-1-1": RED,
    "llava-mix-equal-1-1-1": PURPLE,
    "llava-mole-1-1-1": BLUE,
}


def domains(results: Results) -> Figure | None:
    """Bars of the single-domain baselines, the mixtures and LLaVA-MoLE; None without any."""
    rows = [
        name
        for name in _ROWS
        if any(
            results.estimate(name, column) or results.printed(name, column) is not None
            for column in results.columns
        )
    ]
    if not rows:
        return None
    panels = [
        (domain, column) for domain, columns in results.scale.columns.items() for column in columns
    ]
    with pyplot() as plt:
        figure, axes = plt.subplots(
            1,
            len(panels),
            figsize=(1.7 + 1.75 * len(panels), 1.15 + 0.3 * len(rows)),
            layout="constrained",
            sharey=True,
            squeeze=False,
        )
        for axis, (domain, column) in zip(axes[0], panels, strict=True):
            _panel(axis, results, rows, domain, column)
        axes[0, 0].set_yticks(range(len(rows)), [results.title(name) for name in rows])
        axes[0, 0].invert_yaxis()
        png = finish(figure, results.scale.label)
    caption = (
        f"Scores by training data: bars are {results.means(rows)}. The dashed line and the dark "
        "bar are the model trained on the panel's domain alone."
    )
    if results.comparable:
        caption += " Diamonds are the paper's values."
    return Figure("figure-1", "Figure 1: the domains' benchmarks", caption, png)


def _panel(axis: Any, results: Results, rows: Sequence[str], domain: str, column: str) -> None:
    own, longest = BASELINES.get(domain), 0.0
    for place, name in enumerate(rows):
        estimate, printed = results.estimate(name, column), results.printed(name, column)
        colour = _COLOURS.get(name, DARK if name == own else PALE)
        end = 0.0
        if estimate is not None:
            axis.barh(place, estimate.value, 0.72, color=colour)
            axis.errorbar(
                estimate.value, place, xerr=arms(estimate), color=INK, linewidth=1, capsize=2
            )
            end = max(estimate.value, estimate.high)
        if printed is not None:
            axis.plot(printed, place + 0.2, "D", markersize=4, markerfacecolor="white", color=INK)
            end = max(end, printed)
        shown = estimate.value if estimate is not None else printed
        if shown is not None:
            axis.annotate(
                number(shown, 1), (end, place), (5, 0), textcoords="offset points", va="center",
                fontsize=TINY, color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
            )  # fmt: skip
        longest = max(longest, end)
    baseline = results.estimate(own, column) if own else None
    level = baseline.value if baseline else results.printed(own, column) if own else None
    if level is not None:
        axis.axvline(level, color=DARK, linestyle="--", linewidth=0.9, zorder=0.5)
    axis.set_xlim(0, 1.25 * longest or 1)
    axis.set_title(column if column == domain else f"{domain}: {column}", fontsize=SMALL)
    axis.set_xlabel("sum of five, %" if column == "All" else "%", fontsize=TINY)
    axis.tick_params(axis="y", length=0)
