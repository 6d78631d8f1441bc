"""From a difference and what is expected of it to a verdict; from verdicts to a claim's."""

from collections.abc import Iterable, Sequence

from llava_mole.reproduce.intervals import Difference

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
UNDECIDED = "undecided"
NOT_MEASURED = "not measured"
NOT_PRINTED = "not in the paper"


def of_interval(expect: str, low: float, high: float, margin: float = 0.0) -> str:
    """Supported if the whole interval lies where it is expected, not if all of it lies elsewhere.

    Args:
        expect: ``above``, ``below``, ``not_below``, ``not_above`` or ``within``.
        low: lower end.
        high: upper end, at least ``low``.
        margin: at least 0; ``above`` and ``below`` have none.

    Raises:
        ValueError: another expectation, or ends in the wrong order (NaN is in none).
    """
    if not low <= high:
        raise ValueError(f"[{low}, {high}] is no interval")
    least, most = _expected(expect, margin)
    if least < low and high < most:
        return SUPPORTED
    if high < least or most < low:
        return NOT_SUPPORTED
    return UNDECIDED


def of_print(expect: str, difference: float, margin: float = 0.0) -> str:
    """The same for a difference without interval: it lies where it is expected, or it does not."""
    least, most = _expected(expect, margin)
    return SUPPORTED if least < difference < most else NOT_SUPPORTED


def of_claim(verdicts: Sequence[str]) -> str:
    """A claim's verdict: not measured, not supported or undecided if one comparison is, in turn.

    Raises:
        ValueError: no comparison.
    """
    if not verdicts:
        raise ValueError("a claim without comparisons has no verdict")
    for verdict in (NOT_PRINTED, NOT_MEASURED, NOT_SUPPORTED, UNDECIDED):
        if verdict in verdicts:
            return verdict
    return SUPPORTED


def negligible(low: float, high: float, margin: float) -> bool:
    """Whether the interval lies within the margin: whatever the difference is, it is small."""
    return -margin < low and high < margin


def against(expect: str, difference: Difference, margin: float = 0.0) -> float:
    """Two-sided p of the expectation: where it is small, the difference lies elsewhere.

    Below what the interval leaves out (0.05 of 95 %) where, and only where, the verdict is not
    supported.
    """
    least, most = _expected(expect, margin)
    return min(1.0, 2 * min(difference.below(least), difference.above(most)))


def holm(values: Iterable[float]) -> list[float]:
    """p values adjusted for being several (Holm 1979), in the given order."""
    values = list(values)
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


def _expected(expect: str, margin: float) -> tuple[float, float]:
    """The open range that the difference is expected in."""
    infinite = float("inf")
    ranges = {
        "above": (0.0, infinite),
        "below": (-infinite, 0.0),
        "not_below": (-margin, infinite),
        "not_above": (-infinite, margin),
        "within": (-margin, margin),
    }
    if expect not in ranges:
        raise ValueError(f"unknown expectation {expect!r}; give one of {', '.join(ranges)}")
    return ranges[expect]
