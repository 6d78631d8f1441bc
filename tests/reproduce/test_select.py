"""Which seeds the whole study runs a row with."""

import dataclasses
from pathlib import Path

import pytest

from llava_mole.reproduce.claims import load
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import seeds_of_claims, seeds_of_rows, seeds_shown

EXPERIMENTS = Path(__file__).parents[2] / "configs/experiments"
ROWS = read_rows(EXPERIMENTS)


@pytest.fixture(scope="module")
def tiny():
    return read_scale(EXPERIMENTS, "tiny")


CLAIMS = load(EXPERIMENTS / "claims.yaml")
HEADLINE = CLAIMS.only(["headline"]).rows()


def named(names):
    return [item for item in ROWS if item.row.name in names]


def compared(selection):
    return named(CLAIMS.only(selection).rows())


def seeds_by_row(scale, rows, **options):
    return by_row(seeds_of_rows(CLAIMS, scale, rows, **options))


def by_row(together):
    found = {}
    for items, seeds in together:
        for item in items:
            found.setdefault(item.row.name, set()).update(seeds)
    return found


def test_the_study_has_eight_seeds_of_the_headline_and_four_of_every_other_row(tiny):
    found = seeds_by_row(tiny, ROWS, study=True)
    assert set(found) == {item.row.name for item in ROWS}
    for row in HEADLINE:
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
    one = named(["llava-mole-image-frozen"])
    assert seeds_by_row(tiny, one) == {"llava-mole-image-frozen": set(range(21, 29))}


def test_the_headline_stays_what_it_is_where_other_claims_compare_its_rows_too(tiny):
    assert "llava-med-0-0-1" in HEADLINE  # C11's too, with seeds 13 to 20
    for options in ({}, {"selection": ["headline"]}):
        found = seeds_by_row(tiny, named(HEADLINE), **options)
        assert set(found) == set(HEADLINE)
        assert set(map(frozenset, found.values())) == {frozenset(range(10, 18))}


def test_claims_by_name_run_their_rows_with_what_judges_them_and_no_more(tiny):
    rows = compared(["C11"])
    assert {item.row.name for item in rows} == set(CLAIMS.rows_of("C11"))
    found = seeds_by_row(tiny, rows, selection=["C11"])
    # Seeds 10 to 12 chose the rates; llava-med-0-0-1 is the headline's too.
    assert set(map(frozenset, found.values())) == {frozenset(range(13, 21))}
    # C16 judges by four seeds a row that C14 judges by eight.
    found = seeds_by_row(tiny, compared(["C16"]), selection=["C16"])
    assert found["llava-mole-frozen"] == set(range(21, 25))
    both = ["C16", "C14"]
    found = seeds_by_row(tiny, compared(both), selection=both)
    assert found["llava-mole-frozen"] == set(range(21, 29))
    assert found["llava-mole-gate-prob-frozen"] == set(range(21, 25))


def test_claims_without_seeds_of_their_own_run_with_the_scales(tiny):
    # And so do rows that were chosen beside them.
    more = compared(["C4"]) + named(["llava-mole-gate-prob"])
    found = seeds_by_row(tiny, more, selection=["C4"])
    assert set(found) == {*CLAIMS.rows_of("C4"), "llava-mole-gate-prob"}
    assert set(map(frozenset, found.values())) == {frozenset(range(10, 18))}


def test_an_unknown_claim_is_named():
    with pytest.raises(ValueError, match="claims 'C99': did you mean"):
        compared(["C14", "C99"])


def test_a_report_shows_what_any_claim_judges_a_row_by(tiny):
    found = by_row(seeds_shown(CLAIMS, tiny, ROWS))
    assert set(found) == {item.row.name for item in ROWS}
    assert found["llava-mole-image-frozen"] == {*range(10, 18), *range(21, 29)}
    assert found["llava-mix-rate-1e-5"] == set(range(10, 21))
    # What the headline compares too stays with its seeds, which its means are of.
    assert found["llava-med-0-0-1"] == set(range(10, 18))
    assert found["llava-mole-gate-prob"] == set(range(10, 18))


def test_where_a_scale_says_nothing_all_rows_have_its_seeds():
    paper = read_scale(EXPERIMENTS, "paper")
    found = seeds_by_row(paper, ROWS, study=True)
    assert set(map(frozenset, found.values())) == {frozenset(paper.seeds)}


def test_a_claims_own_seeds_are_no_others_and_its_rows_must_all_be_chosen(tiny):
    found = seeds_of_claims(CLAIMS, "tiny", ROWS)
    items, seeds = found["C14"]
    assert {item.row.table for item in items} == {"frozen"}
    assert seeds == list(range(21, 29))
    one_missing = [item for item in ROWS if item is not items[0]]
    assert "C14" not in seeds_of_claims(CLAIMS, "tiny", one_missing)
    assert not seeds_of_claims(CLAIMS, "paper", ROWS)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([], "must each name one at least"), ([10, 99], "study_seeds: 99 is not among seeds")],
)
def test_study_seeds_that_no_report_would_show_are_refused(tiny, seeds, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny, study_seeds=seeds)
