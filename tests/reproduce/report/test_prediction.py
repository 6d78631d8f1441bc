"""Losses against what was known before: which points there are, and how well they are ordered."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from llava_mole.reproduce.claims import load
from llava_mole.reproduce.cosines import Cosines
from llava_mole.reproduce.report.figures import prediction
from llava_mole.reproduce.report.prediction import (
    TRANSFER,
    correlation,
    points_of,
    points_table,
    prediction_table,
    predictors_of,
)
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.types import PlainLora, Row
from tests.reproduce.paper_rows import CLAIMS, measured

START = "gradient cosine, at initialisation"
COSINE = {("a", "b"): 0.5, ("a", "c"): -0.5, ("b", "c"): 0.0}


def row(name, rank=32, epochs=1, **weights):
    return Row("2", None, name, name.upper(), {}, "trained", PlainLora(weights, rank, epochs))


SINGLES = [row("only-a", a=1), row("only-b", b=1), row("only-c", c=1)]
MIXES = [row("ab", a=1, b=1), row("ac", a=1, c=1), row("abc", a=1, b=2, c=1)]


def cosines(values=COSINE):
    between = {**values, **{(two, one): value for (one, two), value in values.items()}}
    return [Cosines("at initialisation", between)]


def results(found, rows):
    scale = SimpleNamespace(
        name="tiny", columns={name: [name] for name in "abc"}, label="TINY", more={}
    )
    return Results(scale, rows, rows, found, load(CLAIMS), [])


def scores(a, b, c, seeds=(0, 1)):
    return measured({s: {"a": a + s, "b": b + s, "c": c + s} for s in seeds})


FOUND = {
    "only-a": scores(60, 20, 10),
    "only-b": scores(30, 70, 25),
    "only-c": scores(15, 35, 50),
    "ab": scores(58, 69, 0),
    "ac": scores(50, 0, 45),
    "abc": scores(55, 80, 47),
}


def test_a_point_is_a_domain_seen_as_often_alone():
    points = points_of(results(FOUND, [*SINGLES, *MIXES]), cosines())
    losses = {(point.row, point.domain): point.loss.value for point in points}
    # b of λ = 2 has no single-domain run that saw as much of it.
    assert losses == pytest.approx(
        {
            ("ab", "a"): -2, ("ab", "b"): -1, ("ac", "a"): -10, ("ac", "c"): -5,
            ("abc", "a"): -5, ("abc", "c"): -3,
        }
    )  # fmt: skip


def test_predictors_are_means_over_the_others_by_their_weights():
    points = points_of(results(FOUND, [*SINGLES, *MIXES]), cosines())
    found = {(point.row, point.domain): point.predictors for point in points}
    assert found["ab", "a"] == pytest.approx({START: 0.5, TRANSFER: 30.5})
    assert found["abc", "a"][START] == pytest.approx((2 * 0.5 + 1 * -0.5) / 3)
    assert found["abc", "a"][TRANSFER] == pytest.approx((2 * 30.5 + 15.5) / 3)
    assert found["abc", "c"][START] == pytest.approx((1 * -0.5 + 2 * 0.0) / 3)
    # What is undecided for one pair is not known for any mixture with it.
    undecided = cosines({**COSINE, ("a", "b"): None})
    points = points_of(results(FOUND, [*SINGLES, *MIXES]), undecided)
    assert [(p.row, p.domain) for p in points if START in p.predictors] == [
        ("ac", "a"),
        ("ac", "c"),
        ("abc", "c"),
    ]
    assert all(TRANSFER in point.predictors for point in points)


def test_rows_that_are_one_run_or_no_lora_are_no_further_points():
    again = row("ab-again", a=1, b=1)
    other_rank = row("ab-r96", rank=96, a=1, b=1)
    twice = row("ab-x2", epochs=2, a=1, b=1)
    mole = Row("2", None, "mole", "mole", {}, "trained")
    rows = [*SINGLES, *MIXES, again, other_rank, twice, mole]
    more = dict.fromkeys(("ab-again", "ab-r96", "ab-x2", "mole"), FOUND["ab"])
    before = points_of(results(FOUND, [*SINGLES, *MIXES]), cosines())
    assert points_of(results({**FOUND, **more}, rows), cosines()) == before


def test_the_correlation_is_of_ranks():
    points = points_of(results(FOUND, [*SINGLES, *MIXES]), cosines())
    found = correlation(points, START)
    pairs = [(point.predictors[START], point.loss.value) for point in points]
    assert found.value == pytest.approx(slow_spearman(pairs))
    assert (found.points, found.mixtures) == (6, 3)
    # Three mixtures say nothing of chance.
    assert (found.low, found.high) == (None, None)


def slow_spearman(pairs):
    """Pearson's correlation of mid-ranks, by loops."""
    ranks = []
    for place in (0, 1):
        values = [pair[place] for pair in pairs]
        ranks.append(
            [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]
        )
    middle = (len(pairs) + 1) / 2
    x, y = ([rank - middle for rank in own] for own in ranks)
    both = sum(one * other for one, other in zip(x, y, strict=True))
    return both / math.sqrt(sum(one * one for one in x) * sum(one * one for one in y))


def many(noise, mixtures=10):
    """Mixtures of a and a domain each, losses by the cosine and noise."""
    generator = np.random.default_rng(0)
    rows, found, between = [row("only-a", a=1)], {"only-a": scores(60, 0, 0)}, {}
    for number in range(mixtures):
        other = f"x{number}"
        rows.append(row(f"a-{other}", a=1, **{other: 1}))
        between["a", other] = cosine = float(generator.uniform(-1, 1))
        found[f"a-{other}"] = scores(50 + 10 * cosine + noise * float(generator.normal()), 0, 0)
    return points_of(results(found, rows), cosines(between))


def test_the_interval_is_over_mixtures_and_the_same_each_time():
    clear, noisy = correlation(many(0.1), START), correlation(many(30.0), START)
    assert clear.value > 0.9
    assert clear.low > 0.5
    assert noisy.low < 0 < noisy.high
    assert noisy == correlation(many(30.0), START)


def test_tables_and_figure_say_how_little_it_is():
    points = points_of(results(FOUND, [*SINGLES, *MIXES]), cosines())
    table = prediction_table(points)
    assert [line[0].text for line in table.rows] == predictors_of(points) == [START, TRANSFER]
    assert [line[1].text for line in table.rows] == ["6", "6"]
    assert "few and not independent" in table.notes[1]
    assert len(points_table(points, str.upper).rows) == 6
    figure = prediction(points, "TINY")
    with Image.open(io.BytesIO(figure.png)) as image:
        assert image.width > 600
    assert prediction_table([]) is points_table([], str) is prediction([], "TINY") is None


def test_nothing_measured_gives_no_point():
    assert points_of(results({}, [*SINGLES, *MIXES]), cosines()) == []
