"""Student's t against its printed table and against its density, summed."""

import math

import numpy as np
import pytest

from llava_mole.reproduce.student import cdf, quantile

# Two-sided 95 % and 99 %, as in any table of the distribution.
TABLE = [
    (1, 12.706, 63.657),
    (2, 4.303, 9.925),
    (3, 3.182, 5.841),
    (4, 2.776, 4.604),
    (7, 2.365, 3.499),
    (9, 2.262, 3.250),
    (29, 2.045, 2.756),
    (120, 1.980, 2.617),
    (math.inf, 1.960, 2.576),
]


@pytest.mark.parametrize(("freedom", "at_95", "at_99"), TABLE)
def test_quantiles_are_those_of_the_table(freedom, at_95, at_99):
    assert quantile(0.975, freedom) == pytest.approx(at_95, abs=6e-4)
    assert quantile(0.995, freedom) == pytest.approx(at_99, abs=6e-4)
    assert quantile(0.025, freedom) == pytest.approx(-at_95, abs=6e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("t", [-4.0, -1.0, 0.0, 0.3, 2.5])
def test_the_distribution_is_its_density_summed(freedom, t):
    # Substituting x = tan(u) makes the range finite.
    u = np.linspace(-math.pi / 2, math.atan(t), 200_001)[1:]
    x = np.tan(u)
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi)
    constant /= math.gamma(freedom / 2)
    density = constant * (1 + x * x / freedom) ** (-(freedom + 1) / 2) * (1 + x * x)
    assert cdf(t, freedom) == pytest.approx(np.trapezoid(density, u), abs=1e-5)


@pytest.mark.parametrize("freedom", [1, 2])
@pytest.mark.parametrize("t", [-30.0, -0.7, -1e-4, -1e-9, 0.0, 1e-3, 1.5, 200.0])
def test_closed_forms_to_the_last_digits(freedom, t):
    if freedom == 1:
        expected = 0.5 + math.atan(t) / math.pi
    else:
        expected = 0.5 + t / (2 * math.sqrt(2 + t * t))
    assert cdf(t, freedom) == pytest.approx(expected, abs=1e-13)


def test_quantile_undoes_the_distribution():
    for freedom in (1, 3, 11.5, math.inf):
        for probability in (0.001, 0.2, 0.5, 0.9, 0.9995):
            assert cdf(quantile(probability, freedom), freedom) == pytest.approx(probability)


def test_infinite_ends():
    for freedom in (3, math.inf):
        assert (cdf(-math.inf, freedom), cdf(math.inf, freedom)) == (0.0, 1.0)
