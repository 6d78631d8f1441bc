"""Titles, estimates, and where the paper's values may stand."""

from types import SimpleNamespace

import pytest

from llava_mole.reproduce.claims import PAPER_COLUMNS, load
from llava_mole.reproduce.report.machine import machine
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.tables import tables
from llava_mole.reproduce.types import Row
from tests.reproduce.paper_rows import CLAIMS, measured, paper_rows


def results(name, found=None, rows=None):
    # The paper's own columns at every scale: names do not make them comparable.
    scale = SimpleNamespace(name=name, columns=PAPER_COLUMNS, label=name)
    rows = rows or paper_rows()
    return Results(scale, rows, rows, found or {}, load(CLAIMS), [])


@pytest.mark.parametrize(("name", "value"), [("paper", 303.6), ("small", None), ("tiny", None)])
def test_only_the_papers_scale_has_the_papers_values(name, value):
    found = results(name, {"llava-mole-1-2-1": measured({0: {"All": 300.0}})})
    assert found.printed("llava-mole-1-2-1", "All") == value
    shown = str(list(tables(found)))
    assert ("paper 303.6 (−3.60)" in shown) == (value is not None)
    assert ("paper" in machine(found, {})["rows"][0]) == (value is not None)


def test_mean_over_seeds_and_its_interval():
    found = results("paper", {"a": measured({1: {"All": 1.0}, 2: {"All": 2.0}, 3: {"All": 3.0}})})
    estimate = found.estimate("a", "All")
    # Standard deviation 1, t of two degrees of freedom 4.3027.
    assert (estimate.value, estimate.high) == pytest.approx((2, 2 + 4.30265 / 3**0.5))
    assert found.estimate("a", "Open") is None
    assert found.estimate("b", "All") is None


def test_one_seed_and_equal_seeds_have_the_questions_interval():
    for scores in ({1: {"All": 5.0}}, {1: {"All": 5.0}, 2: {"All": 5.0}}):
        estimate = results("paper", {"a": measured(scores, half=2.0)}).estimate("a", "All")
        assert (estimate.low, estimate.high) == pytest.approx((3, 7))


def test_a_table_says_what_its_means_are_of():
    one, two = ({seed: {"All": 5.0} for seed in range(n)} for n in (1, 2))
    for found, said in (
        ({"llava-mole-1-1-1": one}, "One seed's scores with their intervals over images (95 %)"),
        ({"llava-mole-1-1-1": two}, "Means over as many seeds as the table says, with their"),
        ({"llava-mole-1-1-1": two, "llava-mix-1-1-1": one}, "a row with one seed has its score"),
    ):
        found = {name: measured(scores) for name, scores in found.items()}
        (table, *_) = tables(results("tiny", found))
        assert said in table.notes[0]


def test_titles_that_are_alike_carry_the_rows_name():
    rows = [Row("2", 1, name, title, {}, "trained") for name, title in
            (("a", "Mix"), ("b", "Mix"), ("c", "MoLE"), ("c", "sparse"))]  # fmt: skip
    found = results("tiny", rows=rows)
    assert [found.title(name) for name in "abcz"] == ["Mix (a)", "Mix (b)", "MoLE", "z"]
    (table, *_) = tables(found)
    assert [row[1].text for row in table.rows] == ["Mix (a)", "Mix (b)", "MoLE", "sparse"]
