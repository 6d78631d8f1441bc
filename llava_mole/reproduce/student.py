"""Student's t distribution; the normal one is that of infinitely many degrees of freedom."""

import math

from scipy.special import betainc, ndtr, stdtrit


def cdf(t: float, freedom: float) -> float:
    """P(T ≤ t) with ``freedom`` degrees of freedom (> 0, or ``math.inf``), to about 1e-14."""
    if math.isinf(freedom):
        return float(ndtr(t))
    # Not stdtr, which is off by 3e-10 for a tiny t: the middle is counted from 0, tails from their
    # ends, so that neither is the small difference of two large numbers.
    square = t * t
    if square > freedom:
        tail = float(betainc(freedom / 2, 0.5, freedom / (freedom + square))) / 2
        return 1 - tail if t > 0 else tail
    middle = float(betainc(0.5, freedom / 2, square / (freedom + square))) / 2
    return 0.5 + math.copysign(middle, t)


def quantile(probability: float, freedom: float) -> float:
    """The t with P(T ≤ t) = ``probability``, 0 < probability < 1."""
    return float(stdtrit(freedom, probability))
