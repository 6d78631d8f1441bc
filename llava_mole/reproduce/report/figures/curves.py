"""Tables 3 and 4 as curves: the LoRA's rank, and the number of experts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llava_mole.reproduce.report.content import Figure
from llava_mole.reproduce.report.figures.style import (
    BLUE,
    DARK,
    ORANGE,
    PURPLE,
    SMALL,
    arms,
    finish,
    pyplot,
)
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.sums import SUMS

_DOMAINS = ("general", "document")
_RANKS = (
    ("LLaVA-Mix[1,0]", r"llava-mix-1-0-r(\d+)", DARK, "s"),
    ("LLaVA-Mix[1,1]", r"llava-mix-1-1-r(\d+)", ORANGE, "^"),
    ("LLaVA-MoLE[1,1]", r"llava-mole-1-1-r(\d+)", BLUE, "o"),
)
_EXPERTS = (("LLaVA-MoLE[1,1]", r"llava-mole-k(\d+)", BLUE, "o"),)

# Label, place on the axis to row's name, colour, mark.
Line = tuple[str, Mapping[int, str], str, str]


def ranks(results: Results) -> Figure | None:
    """Scores by the rank in a row's name; None where Table 3 is not there."""
    axis = "LoRA rank"
    if results.scale.name != "paper":
        axis = "LoRA rank in the paper (here in proportion)"
    return _figure(results, _lines(results, _RANKS), "ranks", "Table 3: the LoRA rank", axis)


def experts(results: Results) -> Figure | None:
    """Scores by the number of experts; None where Table 4 is not there."""
    title = "Table 4: the number of experts"
    return _figure(results, _lines(results, _EXPERTS), "experts", title, "experts K")


def _lines(results: Results, families: Sequence[tuple[str, str, str, str]]) -> list[Line]:
    lines = []
    for label, pattern, colour, mark in families:
        members = {
            int(match[1]): row.name
            for row in results.rows
            if (match := re.fullmatch(pattern, row.name))
        }
        lines.append((label, members, colour, mark))
    # The last family is MoLE's; its controls have a line of their own.
    controls = {
        place: results.claims.controls[name]
        for place, name in lines[-1][1].items()
        if name in results.claims.controls
    }
    return [*lines, ("plain LoRA of equal parameters", controls, PURPLE, "D")]


def _figure(
    results: Results, lines: Sequence[Line], name: str, title: str, axis_name: str
) -> Figure | None:
    columns = [column for domain in _DOMAINS for column in results.scale.columns.get(domain, ())]
    lines = [line for line in lines if _drawn(results, line, columns)]
    if not lines:
        return None
    ticks = sorted({place for _, members, _, _ in lines for place in members})
    with pyplot() as plt:
        figure, axes = plt.subplots(
            1,
            len(columns),
            figsize=(0.6 + 2.7 * len(columns), 3.1),
            layout="constrained",
            squeeze=False,
        )
        for axis, column in zip(axes[0], columns, strict=True):
            for order, line in enumerate(lines):
                _line(axis, results, line, column, ticks, 0.09 * (order - (len(lines) - 1) / 2))
            axis.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
            axis.set_xlim(-0.4, len(ticks) - 0.6)
            # The interval of two seeds may leave what a score can be.
            low, high = axis.get_ylim()
            axis.set_ylim(max(low, 0), min(high, 100 * SUMS.get(column, 1)))
            axis.set_title(column)
            axis.set_xlabel(axis_name, fontsize=SMALL)
            axis.grid(axis="y")
        axes[0, 0].set_ylabel("score, %", fontsize=SMALL)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(
            unique.values(),
            unique.keys(),
            loc="outside lower center",
            ncols=min(len(unique), len(columns)),
        )
        png = finish(figure, results.scale.label)
    caption = "Means over the seeds with their intervals; lines are moved apart to be seen."
    if results.comparable:
        caption += " Thin dashed lines with open marks are the paper's printed numbers."
    return Figure(name, title, caption, png)


def _drawn(results: Results, line: Line, columns: Sequence[str]) -> bool:
    return any(
        results.estimate(name, column) or results.printed(name, column) is not None
        for name in line[1].values()
        for column in columns
    )


def _line(
    axis: Any, results: Results, line: Line, column: str, ticks: Sequence[int], move: float
) -> None:
    label, members, colour, mark = line
    found = [
        (ticks.index(place) + move, results.estimate(members[place], column))
        for place in sorted(members)
    ]
    found = [(x, estimate) for x, estimate in found if estimate is not None]
    if found:
        axis.plot(
            [x for x, _ in found], [e.value for _, e in found], mark, linestyle="-", color=colour,
            markersize=4.5, linewidth=1.3, label=label,
        )  # fmt: skip
        for x, estimate in found:
            axis.errorbar(x, estimate.value, yerr=arms(estimate), color=colour, capsize=2)
    printed = [
        (ticks.index(place) + move, value)
        for place in sorted(members)
        if (value := results.printed(members[place], column)) is not None
    ]
    if printed:
        axis.plot(
            *zip(*printed, strict=True), mark, linestyle="--", color=colour, markersize=4,
            markerfacecolor="white", linewidth=0.8, label=None if found else f"{label}, printed",
        )  # fmt: skip
