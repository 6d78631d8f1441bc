"""The table of a claim's rows with its own seeds, against means by hand."""

import statistics
from types import SimpleNamespace

import numpy as np
import pytest

from llava_mole.reproduce.claims import load
from llava_mole.reproduce.report.content import NOTHING
from llava_mole.reproduce.report.own_seeds import own_seeds_table
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.write import judged, write
from tests.reproduce.paper_rows import (
    CLAIMS,
    TINY,
    ablation_rows,
    beyond_rows,
    measured,
    paper_rows,
    rate_rows,
)

ROWS = [*paper_rows(), *ablation_rows(), *beyond_rows(), *rate_rows()]
SCALE = SimpleNamespace(name="tiny", columns=TINY, label="TINY", more={})
FROZEN = load(CLAIMS).rows_of("C14")


def drawn(seeds, low):
    """Random scores of C14's rows, from ``low`` up; those of MoLE with their routing's bits."""
    generator = np.random.default_rng(3)
    found = {}
    for name in FROZEN:
        scores = {s: {c: float(generator.uniform(low, low + 20)) for c in TINY} for s in seeds}
        extras = {s: {"parameters": 100.0} for s in seeds}
        if "mole" in name:
            extras = {s: {**own, "mutual_information": 1.25} for s, own in extras.items()}
        found[name] = measured(scores, extras=extras)
    return found


@pytest.fixture
def table():
    usual, own = drawn((10, 11), 0), drawn((21, 22, 23), 60)
    claims, judgements = judged(SCALE, ROWS, usual, CLAIMS, own={"C14": own})
    results = Results(SCALE, ROWS, ROWS, usual, claims, judgements)
    (judgement,) = [one for one in judgements if one.name == "C14"]
    shown = own_seeds_table(results, judgement, own)
    lines = [dict(zip(shown.header, row, strict=True)) for row in shown.rows]
    return own, results, {line["row"].text: line for line in lines}


def test_scores_are_of_the_claims_seeds_alone(table):
    own, results, lines = table
    for name in FROZEN:
        if not name.startswith(("llava-mix", "llava-mole")):
            continue
        line = lines[results.title(name)]
        assert line["seeds"].value == 3
        for column in TINY:
            expected = statistics.mean(own[name].scores[s][column].value for s in (21, 22, 23))
            assert line[column].value == pytest.approx(expected)
        every = [own[name].scores[s][c].value for s in (21, 22, 23) for c in TINY]
        assert line["mean of domains"].value == pytest.approx(statistics.mean(every))
        assert line["parameters"].value == 100.0
        bits = line["routing, bits"]
        assert bits.text == NOTHING if "mix" in name else bits.value == 1.25


def test_a_baselines_domains_are_of_the_rows_that_are_trained_on_them(table):
    own, _, lines = table
    line = lines["one domain each, projector frozen, four times as long"]
    expected = [
        statistics.mean(own[f"llava-{domain}-frozen"].scores[s][domain].value for s in (21, 22, 23))
        for domain in TINY
    ]
    assert [line[domain].value for domain in TINY] == pytest.approx(expected)
    assert line["mean of domains"].value == pytest.approx(statistics.mean(expected))
    assert line["parameters"].text == NOTHING
    assert next(iter(lines)) == "one domain each, projector frozen, four times as long"


def test_the_report_has_it_for_claims_that_were_measured_so(tmp_path):
    usual, own = drawn((10, 11), 0), drawn((21, 22, 23), 60)
    path = write(
        SCALE, [], usual, CLAIMS, tmp_path, {"seeds": [10, 11]}, own={"C14": own, "C13": {}}
    )
    text = path.read_text(encoding="utf-8")
    assert "## C14, the rows' scores" in text
    assert "## C13, the rows' scores" not in text
