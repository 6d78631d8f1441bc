"""Every expectation against every place that an interval can lie in."""

import math

import pytest

from llava_mole.reproduce import verdict
from llava_mole.reproduce.intervals import over_seeds

YES, NO, OPEN = verdict.SUPPORTED, verdict.NOT_SUPPORTED, verdict.UNDECIDED
# Around the bounds -2, 0 and 2 of a margin of 2: interval, then the verdict of each expectation.
EXPECTATIONS = ("above", "below", "not_below", "not_above", "within")
PLACES = [
    ((-5, -3), (NO, YES, NO, YES, NO)),
    ((-5, -1), (NO, YES, OPEN, YES, OPEN)),
    ((-5, 1), (OPEN, OPEN, OPEN, YES, OPEN)),
    ((-5, 3), (OPEN, OPEN, OPEN, OPEN, OPEN)),
    ((-1.5, -0.5), (NO, YES, YES, YES, YES)),
    ((-1, 1), (OPEN, OPEN, YES, YES, YES)),
    ((-1, 5), (OPEN, OPEN, YES, OPEN, OPEN)),
    ((0.5, 1.5), (YES, NO, YES, YES, YES)),
    ((1, 5), (YES, NO, YES, OPEN, OPEN)),
    ((3, 5), (YES, NO, YES, NO, NO)),
    # A bound itself is on neither side.
    ((0, 5), (OPEN, OPEN, YES, OPEN, OPEN)),
    ((-5, 0), (OPEN, OPEN, OPEN, YES, OPEN)),
    ((-2, 1), (OPEN, OPEN, OPEN, YES, OPEN)),
    ((-1, 2), (OPEN, OPEN, YES, OPEN, OPEN)),
    ((-5, -2), (NO, YES, OPEN, YES, OPEN)),
    ((2, 5), (YES, NO, YES, OPEN, OPEN)),
    ((1, 1), (YES, NO, YES, YES, YES)),
]


@pytest.mark.parametrize(("interval", "expected"), PLACES)
def test_verdict_of_an_interval(interval, expected):
    found = tuple(verdict.of_interval(expect, *interval, 2.0) for expect in EXPECTATIONS)
    assert found == expected


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (-3, (NO, YES, NO, YES, NO)),
        (-2, (NO, YES, NO, YES, NO)),
        (-1, (NO, YES, YES, YES, YES)),
        (0, (NO, NO, YES, YES, YES)),
        (1, (YES, NO, YES, YES, YES)),
        (2, (YES, NO, YES, NO, NO)),
        (3, (YES, NO, YES, NO, NO)),
    ],
)
def test_verdict_by_print_is_never_open(difference, expected):
    found = tuple(verdict.of_print(expect, difference, 2.0) for expect in EXPECTATIONS)
    assert found == expected


def test_no_interval_and_no_expectation():
    with pytest.raises(ValueError, match="unknown expectation 'abov'"):
        verdict.of_interval("abov", 0, 1)
    for ends in ((1, 0), (math.nan, 1), (0, math.nan)):
        with pytest.raises(ValueError, match="is no interval"):
            verdict.of_interval("above", *ends)


def test_a_claim_is_as_good_as_its_worst_comparison():
    missing = verdict.NOT_MEASURED
    assert verdict.of_claim([YES, YES]) == YES
    assert verdict.of_claim([YES, OPEN]) == OPEN
    assert verdict.of_claim([YES, OPEN, NO]) == NO
    assert verdict.of_claim([YES, OPEN, NO, missing]) == missing
    assert verdict.of_claim([verdict.NOT_PRINTED, YES]) == verdict.NOT_PRINTED
    with pytest.raises(ValueError, match="without comparisons"):
        verdict.of_claim([])


def test_p_against_is_small_exactly_where_not_supported():
    for shift in (-6, -3, -1, 0, 1, 3, 6):
        found = over_seeds([shift - 0.6, shift, shift + 0.3, shift + 0.4], range(4))
        for expect in EXPECTATIONS:
            judged = verdict.of_interval(expect, found.low, found.high, 2.0)
            assert (verdict.against(expect, found, 2.0) < 0.05) == (judged == NO)


def test_holm_by_hand():
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1, never falling.
    assert verdict.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert verdict.holm([0.9, 0.8]) == [1.0, 1.0]
    assert verdict.holm([]) == []


def test_negligible_is_within_the_margin():
    assert verdict.negligible(-1, 1, 2.0)
    assert not verdict.negligible(-1, 2, 2.0)
    assert not verdict.negligible(-3, 1, 2.0)
