import pytest

from llava_mole.eval.metrics import exact_match, wilson_interval


@pytest.mark.parametrize(
    ("prediction", "reference", "same"),
    [("Yes", "yes", True), (" red. ", "red", True), ("red blue", "red", False), ("", "no", False)],
)
def test_exact_match(prediction, reference, same):
    assert exact_match(prediction, reference) is same


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilson_interval_equals_published_values(hits, total, low, high):
    assert wilson_interval(hits, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_nothing_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)
