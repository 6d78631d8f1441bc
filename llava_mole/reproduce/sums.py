"""Weighted sums of rows' scores in some columns, over the seeds that all of them have."""

from collections.abc import Collection, Mapping, Sequence

from llava_mole.reproduce import intervals
from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.types import Measured, Score

# eHub's All is a sum of five per cents.
SUMS = {"All": 5}
# Weight, row, column.
Term = tuple[float, str, str]


def lacking(measured: Mapping[str, Measured], terms: Sequence[Term]) -> tuple[str, ...]:
    """Rows of the terms that have no score in their column with any seed."""
    return tuple(
        dict.fromkeys(row for _, row, column in terms if not _seeds(measured, row, column))
    )


def weighted(
    measured: Mapping[str, Measured], terms: Sequence[Term], confidence: float
) -> Difference | None:
    """The terms' sum with its interval, paired by seed; None without a seed that all have.

    Args:
        measured: by row's name.
        terms: a weight below 0 takes a row's score off.
        confidence: coverage, within (0, 1).
    """
    common = [_seeds(measured, row, column) for _, row, column in terms]
    seeds = sorted(set.intersection(*common)) if common else []
    if not seeds:
        return None
    scaled = [
        (
            1 if weight > 0 else -1,
            [_scaled(measured[row].scores[seed][column], abs(weight)) for seed in seeds],
        )
        for weight, row, column in terms
    ]
    return intervals.of_scores(scaled, seeds, confidence)


def mean_terms(
    columns: Mapping[str, Collection[str]], row: str | Mapping[str, str], factor: float = 1
) -> list[Term]:
    """The terms of a row's mean over domains, each the mean of its columns; All as its fifth.

    Args:
        columns: domain to its columns.
        row: its name, or that of each domain's own row, as baselines have them.
        factor: on every weight.
    """
    return [
        (
            factor / (len(columns) * len(names) * SUMS.get(column, 1)),
            row if isinstance(row, str) else row[domain],
            column,
        )
        for domain, names in columns.items()
        for column in names
    ]


def _seeds(measured: Mapping[str, Measured], row: str, column: str) -> set[int]:
    scores = measured[row].scores if row in measured else {}
    return {seed for seed, values in scores.items() if column in values}


def _scaled(score: Score, weight: float) -> Score:
    return Score(weight * score.value, weight * score.low, weight * score.high, score.questions)
