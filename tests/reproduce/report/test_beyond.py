"""The tables of stage 1 and of six domains, against sums by hand."""

import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from llava_mole.reproduce.claims import load
from llava_mole.reproduce.report.beyond import beyond_tables, in_beyond_tables
from llava_mole.reproduce.report.content import NOTHING
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.singles import SINGLES
from llava_mole.reproduce.report.tables import tables
from llava_mole.reproduce.types import Row
from tests.reproduce.paper_rows import CLAIMS, TINY, beyond_rows, measured, paper_rows

SEEDS = (0, 1, 2)
SHORT = {f"{name}-short": [f"{name}-short"] for name in TINY}
SIX = {**TINY, **SHORT}


def results(found, rows=None):
    more = {name: SimpleNamespace(columns=columns) for name, columns in SHORT.items()}
    scale = SimpleNamespace(name="tiny", columns=TINY, label="TINY", more=more)
    rows = beyond_rows() if rows is None else rows
    return Results(scale, rows, [*paper_rows(), *rows], found, load(CLAIMS), [])


def drawn():
    """Random scores of all rows; those of six domains have six columns."""
    generator = np.random.default_rng(2)
    found = {}
    for row in [*paper_rows(), *beyond_rows()]:
        if row.kind != "trained":
            continue
        columns = SIX if "six" in row.name or "short" in row.name else TINY
        scores = {s: {c: float(generator.uniform(40, 60)) for c in columns} for s in SEEDS}
        extras = {s: {"parameters": 100.0} for s in SEEDS}
        if "-stage1-" in row.name:
            extras = {s: {**own, "stage_1_loss": 0.25} for s, own in extras.items()}
        if row.name == "llava-mix-six":
            extras[1]["stage_1_loss"] = 0.125
        found[row.name] = measured(scores, extras=extras)
    return found


def by_name(table, results_):
    names = {results_.title(row.name): row.name for row in results_.every}
    return {names.get(row[0].text, row[0].text): dict(zip(table.header, row, strict=True))
            for row in table.rows}  # fmt: skip


def mean(found, name, columns, seed):
    return statistics.mean(found[name].scores[seed][column].value for column in columns)


def test_a_row_stands_beside_itself_after_the_usual_stage_1():
    found = drawn()
    all_of_it = results(found)
    table = next(one for one in beyond_tables(all_of_it) if one.name == "table-stage-1")
    lines = by_name(table, all_of_it)
    usual = {"llava-mix-1-1-1", "llava-mix-equal-1-1-1", "llava-mole-1-1-1"}
    others = {row.name for row in beyond_rows() if "-stage1-" in row.name}
    assert set(lines) == usual | others
    for name in others:
        line, before = lines[name], name.partition("-stage1-")[0] + "-1-1-1"
        expected = [mean(found, name, TINY, s) - mean(found, before, TINY, s) for s in SEEDS]
        assert line["less the usual stage 1's"].value == pytest.approx(statistics.mean(expected))
        assert line["stage 1's loss"].value == 0.25
        own = statistics.mean(found[name].scores[s]["document"].value for s in SEEDS)
        assert line["document"].value == pytest.approx(own)
    # Any row that starts as usual says what the usual stage 1's loss is.
    assert {lines[name]["stage 1's loss"].value for name in usual} == {0.125}
    assert {lines[name]["less the usual stage 1's"].text for name in usual} == {NOTHING}


def test_six_domains_are_held_against_six_runs_on_one_each():
    found = drawn()
    all_of_it = results(found)
    table = next(one for one in beyond_tables(all_of_it) if one.name == "table-six")
    lines = by_name(table, all_of_it)
    order = ["one domain each, plain LoRA", "llava-mix-six"]
    order += [f"llava-{kind}-k{k}" for kind in ("mix-six-equal", "mole-six") for k in (3, 6, 12)]
    assert list(lines) == order
    single = {
        s: statistics.mean(found[row].scores[s][domain].value for domain, row in SINGLES.items())
        for s in SEEDS
    }
    first = lines[order[0]]
    assert first["mean of domains"].value == pytest.approx(statistics.mean(single.values()))
    own = [found["llava-document-short"].scores[s]["document-short"].value for s in SEEDS]
    assert first["document-short"].value == pytest.approx(statistics.mean(own))
    for name in order[1:]:
        means = {s: mean(found, name, SIX, s) for s in SEEDS}
        less = statistics.mean(means[s] - single[s] for s in SEEDS)
        assert lines[name]["less one domain each"].value == pytest.approx(less)
        more = statistics.mean(means[s] - mean(found, "llava-mix-six", SIX, s) for s in SEEDS)
        cell = lines[name][f"less {all_of_it.title('llava-mix-six')}"]
        if name == "llava-mix-six":
            assert cell.text == NOTHING
        else:
            assert cell.value == pytest.approx(more)


def test_seeds_that_one_lacks_are_left_out_and_one_is_said():
    found = drawn()
    name = "llava-mole-six-k6"
    own = found[name].scores
    scores = {s: {c: own[of][c].value for c in SIX} for s, of in ((1, 1), (7, 2))}
    found[name] = measured(scores)
    all_of_it = results(found)
    table = next(one for one in beyond_tables(all_of_it) if one.name == "table-six")
    cell = by_name(table, all_of_it)[name]["less one domain each"]
    assert "one seed" in cell.below
    single = statistics.mean(found[row].scores[1][domain].value for domain, row in SINGLES.items())
    assert cell.value == pytest.approx(mean(found, name, SIX, 1) - single)


def test_what_is_missing_is_named_and_nothing_breaks():
    found = drawn()
    del found["llava-mole-six-k3"], found["llava-general-short"]
    table = next(one for one in beyond_tables(results(found)) if one.name == "table-six")
    assert "Not measured: LLaVA-MoLE[six], K = 3." in table.notes
    assert {row[table.header.index("less one domain each")].text for row in table.rows} == {NOTHING}
    assert list(beyond_tables(results({})))


def test_a_row_of_ones_own_in_the_folder_has_the_usual_table():
    own = Row("beyond", None, "mine", "mine", {}, "trained")
    names = [table.name for table in tables(results(drawn(), [*beyond_rows(), own]))]
    assert names[:3] == ["table-stage-1", "table-six", "table-beyond"]
    assert not in_beyond_tables("mine")
    assert all(in_beyond_tables(row.name) for row in beyond_rows())
    assert "table-beyond" not in [table.name for table in tables(results(drawn()))]
