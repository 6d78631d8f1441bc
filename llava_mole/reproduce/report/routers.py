"""What a row's routers do: how far they tell the benchmarks apart, and how idle an expert is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llava_mole.reproduce import intervals
from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.report.content import NOTHING, Cell, number
from llava_mole.reproduce.report.results import Results

INFORMATION = "mutual_information"
KINDS = "kind_information"
INFORMATION_NOTE = (
    "Routing is the mutual information of a token's benchmark and its expert in bits, mean over "
    "layers, less what shuffled benchmarks give: 0 is chance, and log2 of the benchmarks or of the "
    "experts, whichever are fewer, is the most."
)
KINDS_NOTE = (
    "Kinds is that of a token's kind (image, question or answer) and its expert, over all "
    "benchmarks' tokens, not less chance, which is next to nothing over so many tokens."
)


@dataclass(frozen=True)
class Smallest:
    """The least used expert's share of the tokens, in per cent.

    Attributes:
        mean: over layers, then seeds; the benchmarks count alike.
        lowest: of any layer and seed.
        even: what each expert would have under an even load.
    """

    mean: float
    lowest: float
    even: float


def information(results: Results, name: str, of: str = INFORMATION) -> Difference | None:
    """A row's mutual information of benchmark and expert, mean over seeds; None without any.

    Args:
        results: that have it.
        name: the row's.
        of: `KINDS` for that of a token's kind and its expert.
    """
    measured = results.measured.get(name)
    every = measured.extras.items() if measured else ()
    found = {seed: extras[of] for seed, extras in every if of in extras}
    seeds = sorted(found)
    if len(seeds) > 1:
        each = [found[seed] for seed in seeds]
        return intervals.over_seeds(each, seeds, results.claims.confidence)
    return intervals.exact(found[seeds[0]], seeds[0]) if seeds else None


def information_cell(found: Difference | None) -> Cell:
    """``0.412``, below it ``±0.031`` where there are several seeds."""
    if found is None:
        return Cell(NOTHING)
    below = (half_width(found, 3),) if len(found.seeds) > 1 else ()
    return Cell(number(found.value, 3), below, value=found.value)


def smallest(results: Results, name: str) -> Smallest | None:
    """How little the least used expert of a row has to do; None without routing."""
    measured = results.measured.get(name)
    every = measured.routing.values() if measured else ()
    seeds = [layers for routing in every if (layers := layers_of(routing))]
    if not seeds:
        return None
    least = [[min(layer) for layer in layers] for layers in seeds]
    means = [sum(each) / len(each) for each in least]
    return Smallest(sum(means) / len(means), min(map(min, least)), 100 / len(seeds[0][0]))


def layers_of(routing: Mapping[str, Any]) -> list[list[float]]:
    """Layer to each expert's share in per cent, mean over the benchmarks."""
    benchmarks: Sequence[Sequence[Sequence[float]]] = list((routing.get("load") or {}).values())
    return [
        [sum(shares) / len(shares) / 10 for shares in zip(*layer, strict=True)]
        for layer in zip(*benchmarks, strict=True)
    ]


def half_width(found: Difference, digits: int = 2) -> str:
    """``±0.80``, or ``+0.90 −0.70`` where the arms differ."""
    up, down = (number(arm, digits) for arm in (found.high - found.value, found.value - found.low))
    return f"±{up}" if up == down else f"+{up} −{down}"
