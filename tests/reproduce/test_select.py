"""Which seeds the whole study runs a row with."""

import dataclasses
from pathlib import Path

import pytest

from llava_mole.reproduce.claims import load
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import seeds_of_claims, seeds_of_study

EXPERIMENTS = Path(__file__).parents[2] / "configs/experiments"
ROWS = read_rows(EXPERIMENTS)


@pytest.fixture(scope="module")
def tiny():
    return read_scale(EXPERIMENTS, "tiny")


def test_the_headline_has_eight_seeds_and_every_other_row_four(tiny):
    (first, many), (others, few) = seeds_of_study(EXPERIMENTS, tiny, ROWS)
    assert (len(many), len(few)) == (8, 4)
    headline = set(load(EXPERIMENTS / "claims.yaml").rows("headline"))
    assert {item.row.name for item in first} == headline
    assert {id(item) for item in [*first, *others]} == {id(item) for item in ROWS}
    assert len(first) + len(others) == len(ROWS)


def test_where_a_scale_says_nothing_all_rows_have_its_seeds(tiny):
    same = dataclasses.replace(tiny, study_seeds=None)
    assert {tuple(seeds) for _, seeds in seeds_of_study(EXPERIMENTS, same, ROWS)} == {
        tuple(tiny.seeds)
    }


def test_a_claims_own_seeds_are_no_others_and_its_rows_must_all_be_chosen(tiny):
    found = seeds_of_claims(EXPERIMENTS, "tiny", ROWS)
    items, seeds = found["C14"]
    assert {item.row.table for item in items} == {"frozen"}
    assert seeds == list(range(21, 29))
    one_missing = [item for item in ROWS if item is not items[0]]
    assert "C14" not in seeds_of_claims(EXPERIMENTS, "tiny", one_missing)
    assert not seeds_of_claims(EXPERIMENTS, "paper", ROWS)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([], "must each name one at least"), ([10, 99], "study_seeds: 99 is not among seeds")],
)
def test_study_seeds_that_no_report_would_show_are_refused(tiny, seeds, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, study_seeds=seeds)
