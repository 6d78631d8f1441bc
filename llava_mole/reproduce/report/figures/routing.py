"""Figure 3: where the routers send the benchmarks' tokens; and how far that tells them apart."""

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llava_mole.analysis.routing.draw_load import draw_load
from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.report.content import Figure
from llava_mole.reproduce.report.figures.style import (
    BLUE,
    GREY,
    INK,
    SMALL,
    TINY,
    arms,
    finish,
    pyplot,
)
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.routers import information

# The row that the paper's Figure 3 shows.
_ROW = "llava-mole-1-1-1"
_LETTERS = 46


@dataclass(frozen=True)
class _Load:
    """A benchmark's line of results, as `draw_load` takes it."""

    layers: Sequence[int]
    mean: torch.Tensor
    std: None = None


def load(results: Results) -> Figure | None:
    """Each expert's share of the tokens by layer and benchmark, of the first seed."""
    measured = results.measured.get(_ROW)
    found = {s: r for s, r in (measured.routing if measured else {}).items() if r.get("load")}
    if not found:
        return None
    seed = min(found)
    layers = found[seed]["layers"]
    loads = {
        name: _Load(layers, torch.tensor(shares, dtype=torch.float64) / 1000)
        for name, shares in found[seed]["load"].items()
    }
    with pyplot() as plt:
        figure = draw_load(plt, loads, range(len(layers)), "outside lower center")
        png = finish(figure, results.scale.label)
    caption = (
        f"{results.title(_ROW)}, seed {seed}: each expert's share of a sequence's tokens, mean "
        "over questions; dashed is an even load. It is one seed's: experts are not the same ones "
        "from seed to seed, so that a mean over seeds would say nothing of them. Result lines keep "
        "no deviation over questions, which the paper's figure has."
    )
    return Figure("figure-3", "Figure 3: where tokens go", caption, png)


def specialisation(results: Results) -> Figure | None:
    """Mutual information of benchmark and expert, of every row that has routers."""
    found: list[tuple[str, Difference]] = []
    for name in dict.fromkeys([_ROW, *(row.name for row in results.rows)]):
        one = information(results, name)
        # A run that stands in several tables is drawn once.
        again = any(results.measured[name] == results.measured[other] for other, _ in found if one)
        if one is not None and not again:
            found.append((name, one))
    if not found:
        return None
    titles = [textwrap.fill(results.title(name), _LETTERS) for name, _ in found]
    # A title of several lines takes the place of as many.
    heights = [0.12 * (1 + title.count("\n")) + 0.15 for title in titles]
    ends = list(itertools.accumulate(heights))
    places = [end - height / 2 for end, height in zip(ends, heights, strict=True)]
    with pyplot() as plt:
        figure, axis = plt.subplots(figsize=(7.2, 1.0 + ends[-1]), layout="constrained")
        axis.axvline(0, color=INK, linewidth=0.8)
        for place, (_, one) in zip(places, found, strict=True):
            axis.plot(
                one.each, [place] * len(one.each), "|", color=GREY, markersize=7, linestyle="none"
            )
            axis.errorbar(
                one.value, place, xerr=arms(one), fmt="o", color=BLUE, markersize=4.5, capsize=2
            )
        axis.set_yticks(places, titles, fontsize=TINY)
        axis.set_ylim(ends[-1], 0)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x")
        axis.set_xlabel("mutual information of benchmark and expert, bits", fontsize=SMALL)
        png = finish(figure, results.scale.label)
    caption = (
        "How far a token's expert tells its benchmark, mean over layers, less what shuffled "
        "benchmarks give (0): means over the seeds with their intervals, each seed a stroke."
    )
    return Figure("routers", "What the routers tell apart", caption, png)
