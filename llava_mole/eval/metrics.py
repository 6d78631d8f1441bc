"""Scores of single answers, and intervals of their means. Pure functions."""

import math


def exact_match(prediction: str, reference: str) -> bool:
    """Whether two short answers are the same but for case, outer space and one final period."""
    return _normalise(prediction) == _normalise(reference)


def wilson_interval(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); 95 % at the default ``z``.

    Returns:
        Lower and upper end, within [0, 1]. ``(0.0, 1.0)`` where ``total`` is 0.
    """
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    denominator = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / denominator
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / denominator
    return max(0.0, centre - half), min(1.0, centre + half)


def _normalise(text: str) -> str:
    return text.strip().removesuffix(".").strip().casefold()
