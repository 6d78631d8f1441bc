"""Confidence intervals of a difference between rows.

Three kinds, by what there is:

* Several seeds: both rows were trained with the same seeds, and each seed gives one difference.
  The interval is Student's of their mean. It assumes that a seed's difference is a draw from a
  normal distribution, independent of the others; with few seeds it is wide, as it should be. What
  varies is the training (initialisation, order, adapter); data and test questions are the same
  each time, so it speaks of these questions.
* One seed: nothing is known about other trainings. What is left is the chance of the questions: the
  two rows' own bootstrap intervals combined as if independent, by the squares of their arms (MOVER,
  Zou and Donner 2008). Rows that are asked the same questions go up and down together, so for the
  questions it is conservative; a second training may still land outside.
* A figure that is no sample, such as bytes, of one seed: the difference is its own interval.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llava_mole.reproduce.student import cdf, quantile
from llava_mole.reproduce.types import Score

SEEDS = "seeds"
QUESTIONS = "questions"
EXACT = "exact"

# Sign flips are counted one by one up to 2^16 of them, drawn beyond.
_EXACT_SEEDS = 16
_DRAWS = 1 << _EXACT_SEEDS


@dataclass(frozen=True)
class Difference:
    """A difference with its interval.

    Attributes:
        value: the difference, mean over the seeds.
        low: lower end of the interval.
        high: its upper end.
        kind: ``seeds``, ``questions`` or ``exact``.
        seeds: the seeds that both rows have.
        each: the difference of each seed, in their order.
        freedom: degrees of freedom of the t distribution; infinite for the normal one.
        down: standard error that the lower arm is made of.
        up: that of the upper arm.
        flips: two-sided p of no difference, by flipping the signs of the seeds' differences; None
            with one seed. It does not assume normality, but symmetry.
    """

    value: float
    low: float
    high: float
    kind: str
    seeds: tuple[int, ...]
    each: tuple[float, ...]
    freedom: float = math.inf
    down: float = 0.0
    up: float = 0.0
    flips: float | None = None

    @property
    def signs(self) -> tuple[int, int, int]:
        """How many seeds' differences are above, below and at 0."""
        above = sum(value > 0 for value in self.each)
        below = sum(value < 0 for value in self.each)
        return above, below, len(self.each) - above - below

    def above(self, bound: float) -> float:
        """One-sided p of "the difference is at most ``bound``": small where it is above."""
        return self._tail(self.value - bound, self.down)

    def below(self, bound: float) -> float:
        """One-sided p of "the difference is at least ``bound``": small where it is below."""
        return self._tail(bound - self.value, self.up)

    def _tail(self, distance: float, error: float) -> float:
        if error == 0:
            return float(distance <= 0)
        return cdf(-distance / error, self.freedom)


# Sign (+1 or −1) of a row, and its score with each seed.
Terms = Sequence[tuple[int, Sequence[Score]]]


def of_scores(terms: Terms, seeds: Sequence[int], confidence: float = 0.95) -> Difference:
    """The sum of the terms with its interval: over seeds where there are several, else questions.

    Equal sums of a few seeds are luck, not certainty: there the questions decide too.

    Args:
        terms: one for the mean of a row, two for a difference, four for one of differences.
        seeds: of the scores, in order.
        confidence: coverage, within (0, 1).
    """
    if len(seeds) > 1:
        over = over_seeds(_sums(terms, seeds), seeds, confidence)
        if over.down > 0:
            return over
    return over_questions(terms, seeds, confidence)


def _sums(terms: Terms, seeds: Sequence[int]) -> list[float]:
    return [
        sum(sign * scores[place].value for sign, scores in terms) for place in range(len(seeds))
    ]


def over_seeds(each: Sequence[float], seeds: Sequence[int], confidence: float = 0.95) -> Difference:
    """Student's interval of the mean of the seeds' differences.

    Args:
        each: ``(n,)``, n ≥ 2.
        seeds: ``(n,)`` their seeds.
        confidence: coverage, within (0, 1).

    Raises:
        ValueError: fewer than two differences.
    """
    values = np.asarray(each, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"{len(values)} difference: an interval over seeds needs two or more")
    freedom = len(values) - 1
    # Equal differences differ in their last bits once they are sums.
    spread = values.std(ddof=1) if np.ptp(values) > 1e-9 else 0.0
    error = float(spread) / math.sqrt(len(values))
    mean, arm = float(values.mean()), quantile((1 + confidence) / 2, freedom) * error
    return Difference(
        mean,
        mean - arm,
        mean + arm,
        SEEDS,
        tuple(seeds),
        tuple(values.tolist()),
        freedom,
        error,
        error,
        sign_flips(values),
    )


def over_questions(terms: Terms, seeds: Sequence[int], confidence: float = 0.95) -> Difference:
    """The terms' bootstrap intervals combined as if the terms were independent.

    Args:
        terms: sign (+1 or −1) and the row's score of each seed: their mean, and the mean of their
            intervals' ends, is the row's.
        seeds: the seeds.
        confidence: coverage. The scores' own intervals are 95 % ones: their arms are stretched.
    """
    each = tuple(_sums(terms, seeds))
    value, down, up = 0.0, 0.0, 0.0
    for sign, scores in terms:
        mean, low, high = np.mean([(s.value, s.low, s.high) for s in scores], axis=0).tolist()
        value += sign * mean
        arms = (mean - low, high - mean)
        down += arms[sign < 0] ** 2
        up += arms[sign > 0] ** 2
    down, up = (math.sqrt(arm) / quantile(0.975, math.inf) for arm in (down, up))
    z = quantile((1 + confidence) / 2, math.inf)
    return Difference(
        value,
        value - z * down,
        value + z * up,
        QUESTIONS,
        tuple(seeds),
        each,
        down=down,
        up=up,
        flips=sign_flips(each) if len(each) > 1 else None,
    )


def exact(value: float, seed: int) -> Difference:
    """A difference that no chance is in."""
    return Difference(value, value, value, EXACT, (seed,), (value,))


def sign_flips(each: Sequence[float]) -> float:
    """Two-sided p of the mean under random signs (Fisher's randomisation test of paired data).

    Args:
        each: ``(n,)`` differences. All 2^n signs are tried up to n = 16; beyond, 65,536 are drawn.
    """
    values = np.asarray(each, dtype=np.float64)
    if len(values) <= _EXACT_SEEDS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values))))
        extra = 0
    else:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(_DRAWS, len(values)))
        # The signs as observed are one of the draws: no p of 0.
        extra = 1
    observed = abs(values.sum())
    hits = int((np.abs(signs @ values) >= observed - 1e-9).sum())
    return (hits + extra) / (len(signs) + extra)
