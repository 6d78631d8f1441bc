"""The cosine between two domains' mean gradients, from noisy batches.

A batch's gradient is the domain's mean gradient μ plus noise that is often longer than μ. The
cosine of two such gradients, or of two averages of N, is biased towards 0: noise adds to the norms
in the denominator and nothing to the inner product. Here every term is made of products of
*different* batches, whose noise is independent, and so is unbiased (a U-statistic):

    <μ_a, μ_b>  =  mean over i, j of <g_ai, g_bj>          (two domains' batches always differ)
    |μ_a|²      =  mean over i ≠ j of <g_ai, g_aj>
    cosine      =  <μ_a, μ_b> / sqrt(|μ_a|² |μ_b|²)

The ratio of unbiased terms has a bias of order 1/N of its own, small beside its interval. Intervals
are the jackknife's over batches (Efron and Stein 1981; for several samples, Arvesen 1969) with
Student's t of N - 1 degrees: one batch of one domain is left out at a time. A domain's mean
gradient is decided where the interval of |μ|² lies above 0; else no cosine with it is given.

The reference for how noisy a domain is: the plain cosine between the mean gradients of two halves
of its own batches, ``|μ|² / (|μ|² + 2 v / N)`` with v the variance of one batch: inner product and
squared norm averaged over all ways to halve them. It is 1 without noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

LEAST_BATCHES = 4


@dataclass(frozen=True)
class Cosines:
    """Cosines between M domains' mean gradients.

    Attributes:
        names: M domains.
        value: (M, M) float64 in [-1, 1], symmetric; NaN where undecided, 1 on the diagonal.
        low: (M, M) float64, lower ends of the 95 % intervals.
        high: (M, M) float64, upper ends.
        squared_norm: (M,) float64, estimates of |μ|²; may be negative.
        decided: (M,) bool, whether |μ|² is above its noise.
        halves: (M,) float64 in [0, 1], plain cosine of two halves' means: 1 without noise.
        plain: (M, M) float64, the biased cosines of the averaged gradients, for comparison.
    """

    names: tuple[str, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    squared_norm: np.ndarray
    decided: np.ndarray
    halves: np.ndarray
    plain: np.ndarray

    def pairs(self) -> list[tuple[int, int]]:
        """Index pairs above the diagonal."""
        return [(a, b) for a in range(len(self.names)) for b in range(a + 1, len(self.names))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where undecided."""
        return {
            "pairs": [
                {
                    "domains": [self.names[a], self.names[b]],
                    "cosine": _number(self.value[a, b]),
                    "low": _number(self.low[a, b]),
                    "high": _number(self.high[a, b]),
                    "plain": _number(self.plain[a, b]),
                }
                for a, b in self.pairs()
            ],
            "domains": [
                {
                    "name": name,
                    "squared_norm": float(self.squared_norm[index]),
                    "decided": bool(self.decided[index]),
                    "halves": _number(self.halves[index]),
                }
                for index, name in enumerate(self.names)
            ],
        }


def cosines(gram: np.ndarray, names: Sequence[str], batches: int) -> Cosines:
    """Estimates every pair's cosine, see above.

    Args:
        gram: (M·N, M·N) float64 inner products; batch i of domain d is row d·N + i.
        names: M domains.
        batches: N, at least 4.

    Raises:
        ValueError: too few batches, or a matrix of another shape.
    """
    count, n = len(names), batches
    if n < LEAST_BATCHES:
        raise ValueError(f"{n} batches give no interval; take at least {LEAST_BATCHES}")
    if gram.shape != (count * n, count * n):
        raise ValueError(f"a Gram matrix of {count} x {n} gradients, not {gram.shape}")
    blocks = gram.reshape(count, n, count, n)
    norms = [_squared_norm(blocks[d, :, d, :]) for d in range(count)]
    value, plain = np.eye(count), np.eye(count)
    low, high = np.eye(count), np.eye(count)
    means = blocks.mean(axis=(1, 3))
    for a in range(count):
        for b in range(a + 1, count):
            length = math.sqrt(max(means[a, a] * means[b, b], 0.0))
            plain[a, b] = plain[b, a] = means[a, b] / length if length else math.nan
            found = _pair(blocks[a, :, b, :], norms[a], norms[b])
            for matrix, number in zip((value, low, high), found, strict=True):
                matrix[a, b] = matrix[b, a] = number
    return Cosines(
        tuple(names),
        value,
        low,
        high,
        np.array([norm.value for norm in norms]),
        np.array([norm.decided for norm in norms]),
        np.array([norm.halves for norm in norms]),
        plain,
    )


@dataclass(frozen=True)
class _Norm:
    """|μ|² of one domain: the estimate, (N,) estimates without each batch, and what they say."""

    value: float
    without: np.ndarray
    decided: bool
    halves: float


def _squared_norm(block: np.ndarray) -> _Norm:
    n = len(block)
    own = np.diag(block)
    with_others = block.sum(axis=1) - own
    total = with_others.sum()
    value = total / (n * (n - 1))
    without = (total - 2 * with_others) / ((n - 1) * (n - 2))
    half = student_t(n - 1) * math.sqrt(_jackknife_variance(without))
    noise = own.mean() - value
    halved = max(value, 0.0) + 2 * max(noise, 0.0) / n
    decided = bool(value - half > 0 and (without > 0).all())
    return _Norm(value, without, decided, max(value, 0.0) / halved if halved else math.nan)


def _pair(block: np.ndarray, a: _Norm, b: _Norm) -> tuple[float, float, float]:
    """Cosine and the ends of its interval; NaN where either norm is undecided."""
    if not (a.decided and b.decided):
        return math.nan, math.nan, math.nan
    n = len(block)
    inner = block.mean()
    value = inner / math.sqrt(a.value * b.value)
    variance = 0.0
    for sums, left_out, other in (
        (block.sum(axis=1), a, b),
        (block.sum(axis=0), b, a),
    ):
        inner_without = (block.sum() - sums) / ((n - 1) * n)
        variance += _jackknife_variance(inner_without / np.sqrt(left_out.without * other.value))
    half = student_t(n - 1) * math.sqrt(variance)
    # A parameter that lies in [-1, 1]: clipping costs the interval no coverage.
    value, low, high = np.clip([value, value - half, value + half], -1, 1).tolist()
    return value, low, high


def _jackknife_variance(without: np.ndarray) -> float:
    n = len(without)
    return float((n - 1) / n * np.square(without - without.mean()).sum())


def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t."""
    return float(stdtrit(degrees, 0.975))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
