"""Intervals of differences: by hand, and by how often they hold what is true."""

import itertools
import math

import numpy as np
import pytest

from llava_mole.reproduce.intervals import exact, over_questions, over_seeds, sign_flips
from llava_mole.reproduce.types import Score


def test_students_interval_by_hand():
    # Mean 3, standard deviation sqrt(((-2)^2 + (-1)^2 + 0 + 1 + 2^2) / 4) = sqrt(2.5).
    found = over_seeds([1.0, 2.0, 3.0, 4.0, 5.0], [7, 8, 9, 10, 11])
    arm = 2.7764451 * math.sqrt(2.5 / 5)
    assert (found.value, found.low, found.high) == pytest.approx((3, 3 - arm, 3 + arm))
    assert (found.kind, found.freedom, found.seeds) == ("seeds", 4, (7, 8, 9, 10, 11))
    assert found.signs == (5, 0, 0)


def test_coverage_is_what_it_says():
    generator = np.random.default_rng(1)
    for seeds in (2, 4, 8):
        draws = generator.normal(0.7, 2.0, size=(4000, seeds))
        found = [over_seeds(row, range(seeds)) for row in draws]
        inside = np.mean([one.low <= 0.7 <= one.high for one in found])
        # 4,000 draws: one standard error is 0.0034.
        assert inside == pytest.approx(0.95, abs=0.012)


def test_another_confidence_covers_as_often():
    draws = np.random.default_rng(2).normal(0, 1, size=(3000, 5))
    found = [over_seeds(row, range(5), 0.8) for row in draws]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.8, abs=0.025)


def test_p_of_a_bound_is_below_a_half_of_alpha_exactly_where_the_interval_excludes_it():
    generator = np.random.default_rng(3)
    for row in generator.normal(0.5, 1.0, size=(300, 4)):
        found = over_seeds(row, range(4))
        for bound in (-1.0, 0.0, 2.0):
            assert (found.above(bound) < 0.025) == (found.low > bound)
            assert (found.below(bound) < 0.025) == (found.high < bound)


def test_one_difference_has_no_interval_over_seeds():
    with pytest.raises(ValueError, match="1 difference"):
        over_seeds([1.0], [0])


def test_questions_by_hand():
    # a = 50 [47, 54], b = 40 [38, 44]: down sqrt(3^2 + 4^2), up sqrt(4^2 + 2^2).
    a, b = Score(50, 47, 54, 100), Score(40, 38, 44, 100)
    found = over_questions([(1, [a]), (-1, [b])], [42])
    assert (found.value, found.low, found.high) == pytest.approx((10, 5, 10 + math.sqrt(20)))
    assert (found.kind, found.flips, found.seeds) == ("questions", None, (42,))


def test_a_single_rows_interval_is_its_own():
    found = over_questions([(1, [Score(50, 47, 54, 100)])], [42])
    assert (found.value, found.low, found.high) == pytest.approx((50, 47, 54))


def test_questions_of_a_difference_of_differences():
    scores = [Score(value, value - 1, value + 2, 9) for value in (5, 4, 3, 1)]
    signs = (1, -1, -1, 1)
    found = over_questions([(s, [score]) for s, score in zip(signs, scores, strict=True)], [0])
    assert found.value == -1
    assert found.low == pytest.approx(-1 - math.sqrt(1 + 4 + 4 + 1))
    assert found.high == pytest.approx(-1 + math.sqrt(4 + 1 + 1 + 4))


def test_questions_cover_independent_rows_as_they_say():
    generator = np.random.default_rng(4)
    n, inside = 400, 0
    for _ in range(2000):
        scores = []
        for share in (0.6, 0.5):
            hit = generator.binomial(n, share) / n
            arm = 1.96 * math.sqrt(hit * (1 - hit) / n)
            scores.append(Score(100 * hit, 100 * (hit - arm), 100 * (hit + arm), n))
        found = over_questions([(1, [scores[0]]), (-1, [scores[1]])], [0])
        inside += found.low <= 10 <= found.high
    assert inside / 2000 == pytest.approx(0.95, abs=0.016)


def test_questions_stretch_with_the_confidence():
    scores = [(1, [Score(50, 48, 52, 9)])]
    wide = over_questions(scores, [0], 0.99)
    assert wide.high - 50 == pytest.approx(2 * 2.5758 / 1.95996, abs=1e-4)


def test_an_exact_difference_is_its_own_interval():
    found = exact(-26.5, 3)
    assert (found.low, found.high) == (-26.5, -26.5)
    assert (found.below(0), found.above(0)) == (0.0, 1.0)


@pytest.mark.parametrize("each", [[1, 2, 3], [1, -2, 3, 0.5], [0, 0, 1], [2.0] * 6, [-1, 1]])
def test_sign_flips_are_counted(each):
    hits = total = 0
    for signs in itertools.product((1, -1), repeat=len(each)):
        total += 1
        flipped = sum(s * v for s, v in zip(signs, each, strict=True))
        hits += abs(flipped) >= abs(sum(each)) - 1e-12
    assert sign_flips(each) == pytest.approx(hits / total)


def test_sign_flips_of_many_seeds_are_drawn():
    each = np.random.default_rng(5).normal(0.5, 1.0, size=20)
    p = sign_flips(each)
    assert p == sign_flips(each)
    z = each.sum() / math.sqrt((each**2).sum())
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02)
    assert sign_flips(np.full(20, 3.0)) == pytest.approx(1 / 65537, abs=1e-4)


def test_equal_differences_do_not_count_binary_noise():
    assert over_seeds([0.1 + 0.2, 0.3], [0, 1]).down == 0.0
