"""The estimator against slow loops, and its bias and coverage on gradients with a known mean."""

import itertools
import math

import numpy as np
import pytest

from llava_mole.analysis.conflicts.cosine import cosines, student_t

NAMES = ("a", "b")


def gradients(rng, means, batches: int, noise: float) -> np.ndarray:
    """(M·N, D) gradients around ``means`` (M, D), domain by domain."""
    mean = np.repeat(means, batches, axis=0)
    return mean + noise * rng.standard_normal(mean.shape)


def known_means(cosine: float, width: int) -> np.ndarray:
    """Two means of lengths 1 and 2 with that cosine, (2, width)."""
    means = np.zeros((2, width))
    means[0, 0] = 1
    means[1, :2] = 2 * cosine, 2 * math.sqrt(1 - cosine**2)
    return means


def slow(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Cosine and |μ_one|² by loops over pairs of batches."""

    def squared(own):
        products = [float(g @ h) for i, g in enumerate(own) for j, h in enumerate(own) if i != j]
        return sum(products) / len(products)

    inner = sum(float(g @ h) for g in one for h in other) / (len(one) * len(other))
    return inner / math.sqrt(squared(one) * squared(other)), squared(one)


def test_estimate_and_interval_equal_loops_that_leave_batches_out():
    n = 5
    drawn = gradients(np.random.default_rng(0), known_means(0.4, 7), n, 0.3)
    one, other = drawn[:n], drawn[n:]
    found = cosines(drawn @ drawn.T, NAMES, n)
    value, squared = slow(one, other)
    assert found.value[0, 1] == found.value[1, 0] == pytest.approx(value, abs=1e-12)
    assert found.squared_norm[0] == pytest.approx(squared, abs=1e-12)
    variance = 0.0
    for own in (
        [slow(np.delete(one, i, 0), other)[0] for i in range(n)],
        [slow(one, np.delete(other, i, 0))[0] for i in range(n)],
    ):
        variance += (n - 1) / n * sum((x - np.mean(own)) ** 2 for x in own)
    half = 2.776 * math.sqrt(variance)
    assert found.low[0, 1] == pytest.approx(value - half, rel=1e-3)
    assert found.high[0, 1] == pytest.approx(value + half, rel=1e-3)


def test_halves_is_the_average_over_all_ways_to_halve():
    n = 6
    drawn = gradients(np.random.default_rng(1), known_means(0.0, 9), n, 0.5)
    found = cosines(drawn @ drawn.T, NAMES, n)
    for domain, own in enumerate((drawn[:n], drawn[n:])):
        inner, norms = [], []
        for chosen in itertools.combinations(range(n), n // 2):
            rest = [i for i in range(n) if i not in chosen]
            one, other = own[list(chosen)].mean(0), own[rest].mean(0)
            inner.append(one @ other)
            norms += [one @ one, other @ other]
        assert found.halves[domain] == pytest.approx(np.mean(inner) / np.mean(norms), abs=1e-12)


@pytest.mark.parametrize("cosine", [0.6, 0.0, -0.5])
def test_unbiased_and_covering_where_the_plain_cosine_is_neither(cosine):
    rng = np.random.default_rng(2)
    n, width, trials = 8, 300, 400
    means = known_means(cosine, width)
    values, plain, covered = [], [], 0
    for _ in range(trials):
        # The noise of a batch is about twice as long as the shorter mean.
        drawn = gradients(rng, means, n, 2 / math.sqrt(width))
        found = cosines(drawn @ drawn.T, NAMES, n)
        assert found.decided.all()
        values.append(found.value[0, 1])
        plain.append(found.plain[0, 1])
        covered += found.low[0, 1] <= cosine <= found.high[0, 1]
    error = np.std(values) / math.sqrt(trials)
    assert abs(np.mean(values) - cosine) < 4 * error + 0.005
    # Noise adds 4/8 to the shorter mean's squared length 1, and to the longer's 4.
    expected = cosine / math.sqrt(1.5 * 4.5 / 4)
    assert np.mean(plain) == pytest.approx(expected, abs=0.01)
    assert 0.93 <= covered / trials <= 1


def test_equal_means_give_1_and_opposite_ones_minus_1():
    drawn = gradients(np.random.default_rng(3), np.ones((2, 50)), 8, 1.0)
    found = cosines(drawn @ drawn.T, NAMES, 8)
    assert found.high[0, 1] == 1
    assert found.low[0, 1] > 0.8
    exact = np.repeat([[1.0, 2.0], [-3.0, -6.0]], 4, axis=0)
    found = cosines(exact @ exact.T, NAMES, 4)
    assert found.value[0, 1] == pytest.approx(-1, abs=1e-12)
    assert found.low[0, 1] == pytest.approx(-1, abs=1e-7)
    assert found.high[0, 1] == pytest.approx(-1, abs=1e-7)
    assert found.halves.tolist() == [1, 1]


def test_no_mean_gradient_is_undecided():
    rng = np.random.default_rng(4)
    decided = 0
    for _ in range(200):
        means = np.zeros((2, 100))
        means[0, 0] = 1
        drawn = gradients(rng, means, 8, 0.1)
        found = cosines(drawn @ drawn.T, NAMES, 8)
        assert found.decided[0]
        if not found.decided[1]:
            assert math.isnan(found.value[0, 1])
            assert found.to_dict()["pairs"][0]["cosine"] is None
            assert math.isnan(found.low[0, 1])
        decided += found.decided[1]
    assert decided <= 0.05 * 200


def test_students_t():
    for degrees, expected in ((3, 3.182), (4, 2.776), (7, 2.365), (15, 2.131), (60, 2.000)):
        assert student_t(degrees) == pytest.approx(expected, rel=2e-3)


def test_what_cant_be_estimated_is_refused():
    with pytest.raises(ValueError, match="3 batches give no interval"):
        cosines(np.eye(6), NAMES, 3)
    with pytest.raises(ValueError, match=r"2 x 4 gradients, not \(6, 6\)"):
        cosines(np.eye(6), NAMES, 4)
