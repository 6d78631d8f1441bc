"""Which seeds ``llava-mole reproduce`` runs rows with, and judges claims by."""

import json
from pathlib import Path

import pytest

from llava_mole.cli.main import main
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.runs import resolve_runs
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import select
from llava_mole.reproduce.store import Store
from tests.reproduce.test_store import line
from tests.reproduce.tiny_scale import write_experiments

NAMES = ["llava-mole-gate-prob", "llava-mole-balance-none"]
CLAIM = """\
  C99:
    text: One row is above another.
    source: a test
    seeds: {tiny: [8, 9]}
    comparisons:
      - row: llava-mole-gate-prob
        against: llava-mole-balance-none
        domains: [general]
        expect: above
"""


@pytest.fixture
def experiments(tmp_path):
    """The shipped ones with a further claim, which has seeds of its own."""
    experiments = write_experiments(tmp_path)
    claims = experiments / "claims.yaml"
    claims.write_text(claims.read_text() + CLAIM)
    return experiments


def measure(experiments, seeds, score):
    """Writes results of the claim's rows: a run's score, by what a function says of it."""
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    store = Store(Path(scale.output) / "results.jsonl", "tiny")
    for run in resolve_runs(scale, rows, select(rows, names=NAMES), seeds):
        store.add(line(run, score(run)))


def test_what_a_claim_with_its_own_seeds_compares_is_run_with_those_alone(experiments, capsys):
    claims = experiments / "claims.yaml"
    words = ["reproduce", "--scale", "tiny", "--experiments", str(experiments), "--status"]
    both = ["--rows", "llava-mole-gate-prob", "llava-mole-balance-none", "llava-mole-k8"]
    assert main([*words, *both]) == 0
    out = capsys.readouterr().out
    assert [name for name in ("prob-s8", "prob-s9", "none-s8", "k8-s8") if name in out] == [
        "prob-s8",
        "prob-s9",
        "none-s8",
    ]
    assert "prob-s0" not in out
    assert "6 waiting" in out
    assert main([*words, *both[:2], both[3]]) == 0
    out = capsys.readouterr().out
    assert "prob-s8" in out
    assert "4 waiting" in out
    assert main([*words, *both, "--seeds", "0"]) == 0
    assert "3 waiting" in capsys.readouterr().out
    # Two claims that ask for the same runs have them done once.
    claims.write_text(claims.read_text() + CLAIM.replace("C99", "C98"))
    assert main([*words, *both]) == 0
    assert "6 waiting" in capsys.readouterr().out


def test_a_claims_own_seeds_are_all_that_its_verdict_rests_on(experiments, tmp_path, capsys):
    def score(run):
        high = (NAMES[0] in run.rows) == (run.seed > 5)
        return (60.0 if high else 50.0) + run.seed / 10 * high

    measure(experiments, (0, 1, 8, 9), score)
    words = ["reproduce", "--scale", "tiny", "--experiments", str(experiments), "--report"]
    assert main([*words, "--rows", *NAMES]) == 0
    report = json.loads((tmp_path / "out/report/report.json").read_text())
    (claim,) = (one for one in report["claims"] if one["name"] == "C99")
    (found,) = claim["comparisons"]
    assert found["difference"]["seeds"] == [8, 9]
    assert found["difference"]["value"] == pytest.approx(10.85)
    assert "Judged by seeds 8 and 9." in (tmp_path / "out/report/report.md").read_text()
    made_of, *_ = report["stamp"]["runs"].split(" of ")
    assert made_of == "8"
    assert report["stamp"]["seeds"] == [0, 1, 8, 9]


def test_rows_that_only_their_claims_seeds_have_run_are_reported_by_those(
    experiments, tmp_path, capsys
):
    measure(experiments, (8, 9), lambda run: 40.0 + run.seed)
    words = ["reproduce", "--scale", "tiny", "--experiments", str(experiments)]
    for chosen in (["--rows", *NAMES], ["--table", "ablations"], ["--claims", "C99"]):
        assert main([*words, *chosen, "--report"]) == 0
        report = json.loads((tmp_path / "out/report/report.json").read_text())
        (row,) = (one for one in report["rows"] if one["name"] == NAMES[0])
        assert row["measured"]["general"]["value"] == 48.5
        assert row["measured"]["general"]["seeds"] == [8, 9]
        stamped = f"llava-mole reproduce {' '.join(chosen)} --scale tiny"
        assert report["stamp"]["command"].startswith(stamped)
    assert [one["name"] for one in report["claims"]] == ["C99"]
    assert report["stamp"]["runs"] == "4 of 4"
    capsys.readouterr()
    assert main([*words, "--claims", "C99", "--status"]) == 0
    assert "4 done" in capsys.readouterr().out
    assert main([*words, "--claims", "C98", "--status"]) == 2
    assert "did you mean 'C9" in capsys.readouterr().err
