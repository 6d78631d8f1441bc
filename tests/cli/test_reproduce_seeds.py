"""Which seeds ``llava-mole reproduce`` runs rows with, and judges claims by."""

import json

import pytest

from llava_mole.cli.main import main
from tests.reproduce.tiny_scale import write_experiments

CLAIM = """\
  C99:
    text: One row is above another.
    source: a test
    seeds: {tiny: [8, 9]}
    comparisons:
      - {row: llava-mole-k5, against: llava-mix-1-1-0, domains: [general], expect: above}
"""


def test_what_a_claim_with_its_own_seeds_compares_is_run_with_those_alone(tmp_path, capsys):
    experiments = write_experiments(tmp_path)
    claims = experiments / "claims.yaml"
    claims.write_text(claims.read_text() + CLAIM)
    words = ["reproduce", "--scale", "tiny", "--experiments", str(experiments), "--status"]
    both = ["--rows", "llava-mole-k5", "llava-mix-1-1-0", "llava-mole-k8"]
    assert main([*words, *both]) == 0
    out = capsys.readouterr().out
    assert [name for name in ("k5-s8", "k5-s9", "mix-1-1-0-s8", "k8-s8") if name in out] == [
        "k5-s8",
        "k5-s9",
        "mix-1-1-0-s8",
    ]
    assert "k5-s0" not in out
    assert "6 waiting" in out
    assert main([*words, *both[:2], both[3]]) == 0
    out = capsys.readouterr().out
    assert "k5-s8" in out
    assert "4 waiting" in out
    assert main([*words, *both, "--seeds", "0"]) == 0
    assert "3 waiting" in capsys.readouterr().out
    # Two claims that ask for the same runs have them done once.
    claims.write_text(claims.read_text() + CLAIM.replace("C99", "C98"))
    assert main([*words, *both]) == 0
    assert "6 waiting" in capsys.readouterr().out


def test_a_claims_own_seeds_are_all_that_its_verdict_rests_on(tmp_path, capsys):
    from llava_mole.reproduce.rows import read_rows
    from llava_mole.reproduce.runs import resolve_runs
    from llava_mole.reproduce.scales import read_scale
    from llava_mole.reproduce.select import select
    from llava_mole.reproduce.store import Store
    from tests.reproduce.test_store import line

    experiments = write_experiments(tmp_path)
    claims = experiments / "claims.yaml"
    claims.write_text(claims.read_text() + CLAIM)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    names = ["llava-mole-k5", "llava-mix-1-1-0"]
    store = Store(tmp_path / "out/results.jsonl", "tiny")
    for run in resolve_runs(scale, rows, select(rows, experiments, names=names), (0, 1, 8, 9)):
        high = ("llava-mole-k5" in run.rows) == (run.seed > 5)
        store.add(line(run, (60.0 if high else 50.0) + run.seed / 10 * high))
    words = ["reproduce", "--scale", "tiny", "--experiments", str(experiments), "--report"]
    assert main([*words, "--rows", *names]) == 0
    report = json.loads((tmp_path / "out/report/report.json").read_text())
    (claim,) = (one for one in report["claims"] if one["name"] == "C99")
    (found,) = claim["comparisons"]
    assert found["difference"]["seeds"] == [8, 9]
    assert found["difference"]["value"] == pytest.approx(10.85)
    assert "Judged by seeds 8 and 9." in (tmp_path / "out/report/report.md").read_text()
    made_of, *_ = report["stamp"]["runs"].split(" of ")
    assert made_of == "8"
