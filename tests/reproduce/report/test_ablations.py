"""The open questions' table, against sums by hand."""

import math
import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from llava_mole.reproduce.claims import load
from llava_mole.reproduce.report.ablations import ablations, ablations_table
from llava_mole.reproduce.report.content import NOTHING
from llava_mole.reproduce.report.machine import machine
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.tables import tables
from llava_mole.reproduce.student import quantile
from tests.reproduce.paper_rows import CLAIMS, TINY, ablation_rows, measured, paper_rows

OURS = "llava-mole-gate-prob"
NAMES = ("llava-mole-1-1-1", "llava-mix-equal-1-1-1", "llava-mix-1-1-1", OURS)
COLUMNS = {"general": ["All"], "document": ["ChartQA", "DocQA"], "biomedicine": ["Closed"]}


def results(found, columns=TINY, rows=None, name="tiny"):
    scale = SimpleNamespace(name=name, columns=columns, label=name, more={})
    every = [*paper_rows(), *ablation_rows()]
    return Results(scale, rows if rows is not None else every, every, found, load(CLAIMS), [])


def drawn(columns, seeds):
    """Random scores, seconds, routers; row to what `measured` takes."""
    generator = np.random.default_rng(1)
    names = [column for group in columns.values() for column in group]
    found = {}
    for row, own in zip(NAMES, seeds, strict=True):
        scores = {s: {c: float(generator.uniform(40, 60)) for c in names} for s in own}
        extras = {
            s: {"seconds": float(generator.uniform(5, 9)), "parameters": 100.0 + len(row)}
            for s in own
        }
        routing = {}
        for s in own if "mole" in row else ():
            extras[s]["mutual_information"] = float(generator.uniform())
            extras[s]["kind_information"] = float(generator.uniform())
            shares = generator.integers(1, 300, (2, 4, 2)).tolist()
            layers = [[[*two, 1000 - sum(two)] for two in layer] for layer in shares]
            routing[s] = {"layers": [0, 1, 2, 3], "load": dict(zip("ab", layers, strict=True))}
        found[row] = measured(scores, extras=extras, routing=routing)
    return found


SEEDS = [(0, 1, 2, 3), (0, 1, 2), (1, 2, 3), (2, 3, 5, 1)]


def slow_mean(scores, columns):
    """The domains' mean of one seed, ``All`` a sum of five."""
    means = []
    for names in columns.values():
        values = [scores[name].value / (5 if name == "All" else 1) for name in names]
        means.append(sum(values) / len(values))
    return sum(means) / len(means)


def student(values):
    half = quantile(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


def agrees(found, values):
    mean, half = student(values)
    assert found.value == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))


@pytest.mark.parametrize("columns", [TINY, COLUMNS])
def test_numbers_are_those_of_a_slow_reference(columns):
    found = drawn(columns, SEEDS)
    lines = {line.name: line for line in ablations(results(found, columns))}
    for name, seeds in zip(NAMES, SEEDS, strict=True):
        line, own, mole = lines[name], found[name], found[NAMES[0]]
        agrees(line.mean, [slow_mean(own.scores[s], columns) for s in sorted(seeds)])
        for domain, names in columns.items():
            part = {domain: names}
            agrees(line.domains[domain], [slow_mean(own.scores[s], part) for s in sorted(seeds)])
        if name == NAMES[0]:
            assert line.against is None
        else:
            both = sorted(set(seeds) & set(SEEDS[0]))
            assert line.against.seeds == tuple(both)
            more = [
                slow_mean(own.scores[s], columns) - slow_mean(mole.scores[s], columns) for s in both
            ]
            agrees(line.against, more)
        plain = found["llava-mix-1-1-1"].extras
        ratios = [own.extras[s]["seconds"] / plain[s]["seconds"] for s in seeds if s in plain]
        assert line.seconds == pytest.approx(statistics.median(ratios))
        assert line.parameters == 100 + len(name)


def test_routers_against_a_slow_reference():
    found = drawn(TINY, SEEDS)
    lines = {line.name: line for line in ablations(results(found))}
    for name in NAMES:
        line, own = lines[name], found[name]
        if "mole" not in name:
            assert line.information is None
            assert line.kinds is None
            assert line.smallest is None
            continue
        agrees(line.information, [e["mutual_information"] for e in own.extras.values()])
        agrees(line.kinds, [e["kind_information"] for e in own.extras.values()])
        every = []
        for routing in own.routing.values():
            for layer in range(4):
                a, b = (routing["load"][benchmark][layer] for benchmark in "ab")
                every.append(min((x + y) / 20 for x, y in zip(a, b, strict=True)))
        assert line.smallest.mean == pytest.approx(sum(every) / len(every))
        assert line.smallest.lowest == pytest.approx(min(every))
        assert line.smallest.even == pytest.approx(100 / 3)


def test_one_seed_has_the_questions_interval():
    scores = dict.fromkeys(TINY, 50.0)
    found = {name: measured({4: scores}, half=3.0) for name in (NAMES[0], OURS)}
    line = next(line for line in ablations(results(found)) if line.name == OURS)
    # Three independent domains of ± 3, a third of each; a difference has both rows'.
    assert (line.mean.low, line.mean.high) == pytest.approx((50 - 3**0.5, 50 + 3**0.5))
    assert (line.against.low, line.against.high) == pytest.approx((-(6**0.5), 6**0.5))
    assert line.seconds is None
    assert line.parameters is None


def test_the_table_has_the_references_on_top_and_says_what_is_missing():
    found = drawn(TINY, SEEDS)
    table = ablations_table(results(found))
    names = [row[0].text for row in table.rows]
    assert names == [name.upper() for name in (*NAMES[:3], *(r.name for r in ablation_rows()))]
    assert {len(row) for row in table.rows} == {len(table.header)}
    ours = table.rows[names.index(OURS.upper())]
    line = next(line for line in ablations(results(found)) if line.name == OURS)
    assert ours[table.header.index("mean of domains")].value == line.mean.value
    half = line.mean.high - line.mean.value
    assert ours[table.header.index("mean of domains")].below == (f"±{half:.2f}",)
    assert ours[table.header.index("less LLAVA-MOLE-1-1-1")].value == line.against.value
    assert ours[table.header.index("kinds, bits")].value == line.kinds.value
    assert ours[table.header.index("training time")].text == f"×{line.seconds:.2f}"
    assert ours[table.header.index("parameters")].text == "120"
    missing = next(row for row in table.rows if row[0].text == "LLAVA-MOLE-BALANCE-NONE")
    assert {cell.text for cell in missing[1:]} == {NOTHING}
    assert "LLAVA-MOLE-BALANCE-NONE" in table.notes[-1]
    assert OURS.upper() not in table.notes[-1]
    assert "beside other runs" in table.notes[3]


def test_it_stands_in_the_folders_place_and_only_there():
    found = drawn(TINY, SEEDS)
    names = [table.name for table in tables(results(found))]
    assert names.count("table-ablations") == 1
    assert ablations_table(results(found, rows=paper_rows())) is None
    assert machine(results(found, rows=paper_rows()), {})["ablations"] == []


def test_json_has_every_figure():
    made = results(drawn(TINY, SEEDS))
    entries = {entry["name"]: entry for entry in machine(made, {})["ablations"]}
    for line in ablations(made):
        entry = entries[line.name]
        if line.against:
            assert entry["against"]["value"] == line.against.value
            assert entry["against"]["each"] == list(line.against.each)
        if line.smallest:
            assert entry["smallest"]["lowest"] == line.smallest.lowest
            assert entry["information"]["low"] == line.information.low
        assert entry["seconds"] == line.seconds


def test_tables_with_routers_show_what_they_tell_apart():
    found = drawn(TINY, SEEDS)
    shown = {table.name: table for table in tables(results(found))}
    table = shown["table-2"]
    assert table.header[-1] == "routing, bits"
    cells = {row[1].text: row[-1] for row in table.rows}
    bits = [extras["mutual_information"] for extras in found[NAMES[0]].extras.values()]
    mean, half = student(bits)
    assert cells["LLAVA-MOLE-1-1-1"].text == f"{mean:.3f}"
    assert cells["LLAVA-MOLE-1-1-1"].below == (f"±{half:.3f}",)
    assert cells["LLAVA-MIX-1-1-1"].text == NOTHING
    assert shown["table-4"].header[-1] == "biomedicine"
    assert not {"mutual information", "kind information"} & set(shown["cost"].header)
