"""Each claim's comparisons: difference, interval, margin."""

from collections.abc import Iterator, Sequence
from typing import Any

from llava_mole.reproduce import verdict
from llava_mole.reproduce.judge import Judgement, Outcome, Printed
from llava_mole.reproduce.report.content import Figure
from llava_mole.reproduce.report.figures.style import (
    BLUE,
    GREY,
    INK,
    PURPLE,
    RED,
    SHADE,
    SMALL,
    TINY,
    arms,
    finish,
    pyplot,
)
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.verdicts import expected

_MARKS = {
    verdict.SUPPORTED: (BLUE, "o", "full"),
    verdict.NOT_SUPPORTED: (RED, "x", "full"),
    verdict.UNDECIDED: (GREY, "o", "none"),
}
# If a comparison's name has more, all of its claim's are broken at the minus.
_LETTERS = 60
_CAPTION = (
    "Differences with their intervals; what is expected of each stands at the right, its margin is "
    "shaded."
)


def forests(results: Results) -> Iterator[Figure]:
    """One figure a claim, for those that there is something to draw of."""
    for judgement in results.judgements:
        printed = _printed(judgement) if results.comparable else {}
        if not printed and all(one.difference is None for one in judgement.outcomes):
            continue
        yield Figure(
            f"claim-{judgement.name}",
            f"{judgement.name}, comparison by comparison",
            f"{judgement.claim.text} {_CAPTION}",
            _draw(results, judgement, printed),
        )


def _printed(judgement: Judgement) -> dict[Any, float]:
    return {_key(one): one.difference for one in judgement.printed if one.difference is not None}


def _key(one: Outcome | Printed) -> tuple:
    return one.pair.terms, one.pair.column, one.pair.expect


def _draw(results: Results, judgement: Judgement, printed: dict[Any, float]) -> bytes:
    # Points of a score and per cent of a quantity have an axis each.
    groups = [
        [one for one in judgement.outcomes if (one.pair.quantity is not None) is quantity]
        for quantity in (False, True)
    ]
    groups = [group for group in groups if group]
    with pyplot() as plt:
        lines = sum(map(len, groups))
        figure, axes = plt.subplots(
            len(groups),
            1,
            figsize=(7.6, 1.0 + 0.45 * len(groups) + 0.27 * lines),
            height_ratios=[len(group) + 0.6 for group in groups],
            layout="constrained",
            squeeze=False,
        )
        for axis, group in zip(axes[:, 0], groups, strict=True):
            _panel(axis, results, group, printed)
        axes[0, 0].set_title(f"{judgement.name}: {judgement.said}", loc="left")
        _legend(figure, judgement, printed)
        return finish(figure, results.scale.label)


def _panel(axis: Any, results: Results, group: Sequence[Outcome], printed: dict) -> None:
    axis.axvline(0, color=INK, linewidth=0.8)
    for place, one in enumerate(group):
        margin = one.pair.margin
        if margin:
            axis.barh(place, 2 * margin, 0.86, left=-margin, color=SHADE, zorder=0)
        if one.control is not None:
            _mark(axis, one.control, place + 0.26, PURPLE, "s", "none", 3.2)
        if one.difference is not None:
            _mark(axis, one.difference, place, *_MARKS[one.verdict], 5)
        elif _key(one) not in printed:
            axis.annotate(
                "not measured", (0, place), (4, 0), textcoords="offset points", va="center",
                fontsize=TINY, color=GREY,
            )  # fmt: skip
        if _key(one) in printed:
            axis.plot(
                printed[_key(one)], place - 0.2, "D", markersize=3.5, color=INK,
                markerfacecolor="white", markeredgewidth=0.8,
            )  # fmt: skip
        axis.annotate(
            expected(one.pair.expect, margin), (1.01, place), xycoords=("axes fraction", "data"),
            va="center", fontsize=TINY, color=INK, annotation_clip=False,
        )  # fmt: skip
    names = [f"{results.compared(one.pair)}, {one.pair.column}" for one in group]
    names = [name.replace(") − (", ")\n− (") for name in names]
    if max(len(line) for name in names for line in name.splitlines()) > _LETTERS:
        # On one line each they would leave no room for what is drawn.
        names = [name if "\n" in name else name.replace(" − ", "\n− ", 1) for name in names]
    axis.set_yticks(range(len(group)), names, fontsize=TINY)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(group) - 0.4, -0.6)
    axis.grid(axis="x")
    unit = "per cent of the row compared against" if group[0].pair.quantity else "points"
    axis.set_xlabel(f"difference, {unit}", fontsize=SMALL)


def _mark(axis: Any, found: Any, place: float, colour: str, mark: str, fill: str, size: float):
    axis.errorbar(
        found.value, place, xerr=arms(found), fmt=mark, color=colour, fillstyle=fill,
        markersize=size, markeredgewidth=1.3, linewidth=1.2, capsize=2, zorder=3,
    )  # fmt: skip


def _legend(figure: Any, judgement: Judgement, printed: dict) -> None:
    """Names the marks that occur."""
    from matplotlib.lines import Line2D

    marks = [
        (name, *mark)
        for name, mark in _MARKS.items()
        if any(one.verdict == name for one in judgement.outcomes)
    ]
    if any(one.control for one in judgement.outcomes):
        marks.append(("equal parameters in LLaVA-MoLE's place", PURPLE, "s", "none"))
    if printed:
        marks.append(("printed in the paper", INK, "D", "none"))
    handles = [
        Line2D([], [], linestyle="none", color=colour, marker=mark, fillstyle=fill, label=name)
        for name, colour, mark, fill in marks
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), fontsize=TINY,
            markerscale=0.8, handletextpad=0.2, columnspacing=1.2,
        )  # fmt: skip
