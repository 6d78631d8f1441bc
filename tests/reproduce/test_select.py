"""Which seeds the whole study runs a row with."""

import dataclasses
from pathlib import Path

import pytest

from llava_mole.reproduce.claims import load
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import seeds_of_claims, seeds_of_rows

EXPERIMENTS = Path(__file__).parents[2] / "configs/experiments"
ROWS = read_rows(EXPERIMENTS)


@pytest.fixture(scope="module")
def tiny():
    return read_scale(EXPERIMENTS, "tiny")


def seeds_by_row(scale, rows, **options):
    found = {}
    for items, seeds in seeds_of_rows(EXPERIMENTS, scale, rows, **options):
        for item in items:
            found.setdefault(item.row.name, set()).update(seeds)
    return found


def test_the_study_has_eight_seeds_of_the_headline_and_four_of_every_other_row(tiny):
    found = seeds_by_row(tiny, ROWS, study=True)
    assert set(found) == {item.row.name for item in ROWS}
    for row in load(EXPERIMENTS / "claims.yaml").rows("headline"):
        assert found[row] >= set(range(10, 18))
    assert found["llava-mole-gate-prob"] == {10, 11, 12, 13}
    # Chosen by three seeds at their rate; judged by eight, there and at four times the length.
    assert found["llava-mix-rate-1e-5"] == set(range(10, 21))
    assert found["llava-mix-rate-1e-5-x4"] == set(range(13, 21))
    assert found["llava-mix-rate-1e-5-x2"] == {10, 11, 12, 13}
    assert found["llava-mole-image-frozen"] == set(range(21, 29))


def test_a_part_has_the_scales_seeds_but_for_what_claims_judge_by_others(tiny):
    frozen = seeds_by_row(tiny, [item for item in ROWS if item.row.table == "frozen"])
    assert set(map(frozenset, frozen.values())) == {frozenset(range(21, n)) for n in (25, 29)}
    ablations = seeds_by_row(tiny, [item for item in ROWS if item.row.table == "ablations"])
    assert set(map(frozenset, ablations.values())) == {frozenset(range(10, 18))}
    one = [item for item in ROWS if item.row.name == "llava-mole-image-frozen"]
    assert seeds_by_row(tiny, one) == {"llava-mole-image-frozen": set(range(21, 29))}


def test_the_headline_stays_what_it_is_where_other_claims_compare_its_rows_too(tiny):
    names = load(EXPERIMENTS / "claims.yaml").rows("headline")
    assert "llava-med-0-0-1" in names  # C11's too, with seeds 13 to 20
    found = seeds_by_row(tiny, [item for item in ROWS if item.row.name in names])
    assert set(map(frozenset, found.values())) == {frozenset(range(10, 18))}


def test_where_a_scale_says_nothing_all_rows_have_its_seeds():
    paper = read_scale(EXPERIMENTS, "paper")
    found = seeds_by_row(paper, ROWS, study=True)
    assert set(map(frozenset, found.values())) == {frozenset(paper.seeds)}


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
