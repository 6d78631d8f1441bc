"""Weighted sums of rows' scores in some columns, over the seeds that all of them have."""

from collections.abc import Mapping, Sequence

from llava_mole.reproduce import intervals
from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.scales import Scale
from llava_mole.reproduce.types import Score

# eHub's All is a sum of five per cents.
SUMS = {"All": 5}
# Weight, row, column.
Term = tuple[float, str, str]


def domains_of(scale: Scale) -> dict[str, Sequence[str]]:
    """Every domain's columns, those beyond the scale's own last."""
    return {**scale.columns, **{name: one.columns for name, one in scale.more.items()}}


def weighted(results: Results, terms: Sequence[Term]) -> Difference | None:
    """The terms' sum with its interval, paired by seed; None without a seed that all have.

    Args:
        results: that have the scores.
        terms: a weight below 0 takes a row's score off.
    """
    seeds: set[int] | None = None
    for _, row, column in terms:
        found = results.measured.get(row)
        scores = found.scores if found else {}
        full = {seed for seed, values in scores.items() if column in values}
        seeds = full if seeds is None else seeds & full
    if not seeds:
        return None
    ordered = sorted(seeds)
    scaled = [
        (
            1 if weight > 0 else -1,
            [_scaled(results.measured[row].scores[seed][column], abs(weight)) for seed in ordered],
        )
        for weight, row, column in terms
    ]
    return intervals.of_scores(scaled, ordered, results.claims.confidence)


def mean_terms(columns: Mapping[str, Sequence[str]], row: str, factor: float = 1) -> list[Term]:
    """The terms of a row's mean over domains, each the mean of its columns; All as its fifth.

    Args:
        columns: domain to its columns.
        row: its name.
        factor: on every weight.
    """
    return [
        (factor / (len(columns) * len(names) * SUMS.get(column, 1)), row, column)
        for names in columns.values()
        for column in names
    ]


def _scaled(score: Score, weight: float) -> Score:
    return Score(weight * score.value, weight * score.low, weight * score.high, score.questions)
