"""Student's t distribution; the normal one is that of infinitely many degrees of freedom."""

import functools
import math
from statistics import NormalDist

_TINY = 1e-300


def cdf(t: float, freedom: float) -> float:
    """P(T ≤ t) with ``freedom`` degrees of freedom (> 0, or ``math.inf``), to about 1e-14."""
    if math.isinf(freedom):
        return NormalDist().cdf(t)
    if math.isinf(t):
        return float(t > 0)
    # The argument and what it lacks of 1 are made apart: near 1 the difference has no digits left.
    square = freedom + t * t
    tail = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / square, t * t / square)
    return 1 - tail if t > 0 else tail


@functools.cache
def quantile(probability: float, freedom: float) -> float:
    """The t with P(T ≤ t) = ``probability``, 0 < probability < 1, by bisection."""
    if math.isinf(freedom):
        return NormalDist().inv_cdf(probability)
    high = 1.0
    while cdf(high, freedom) < max(probability, 1 - probability):
        high *= 2
    low = -high
    for _ in range(200):
        middle = (low + high) / 2
        if cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Regularised incomplete beta function I_x(a, b) with ``rest`` = 1 − x, by its fraction."""
    if x <= 0 or rest <= 0:
        return float(rest <= 0)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log + a * math.log(x) + b * math.log(rest))
    # The fraction converges fast on this side of the mean only.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Lentz's evaluation (Press et al., "Numerical Recipes", 3rd edition, section 6.4)."""
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return result


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
