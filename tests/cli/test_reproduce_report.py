"""The reports of ``llava-mole reproduce``: which goes where, and what leaves it alone."""

import json
import re

import pytest

from llava_mole.cli.main import main
from tests.reproduce.tiny_scale import write_experiments


@pytest.fixture
def measured(tmp_path):
    """Experiments with a place for the study's report, and made-up results of every run."""
    from llava_mole.reproduce.rows import read_rows
    from llava_mole.reproduce.runs import resolve_runs, summary
    from llava_mole.reproduce.scales import read_scale
    from llava_mole.reproduce.store import Store

    places = {"results": str(tmp_path / "docs/results.jsonl"), "report": str(tmp_path / "docs")}
    experiments = write_experiments(tmp_path, **places)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    store = Store(tmp_path / "docs/results.jsonl", "tiny")
    for number, one in enumerate(resolve_runs(scale, rows, rows, scale.seeds)[:8]):
        score = {"value": 50.0 + number, "low": 45.0, "high": 70.0, "questions": 10}
        store.add(
            {
                "hash": one.hash,
                "scale": "tiny",
                "rows": list(one.rows),
                "seed": one.seed,
                "config": summary(one),
                "scores": dict.fromkeys(scale.all_columns, score),
                "seconds": {"train": 3.0},
                "versions": {"torch": "1"},
            }
        )
    return experiments


def report_files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}


def test_the_studys_report_stands_beside_its_results_and_is_the_same_again(measured, tmp_path):
    words = ["reproduce", "--scale", "tiny", "--experiments", str(measured), "--study", "--report"]
    assert main(words) == 0
    first = report_files(tmp_path / "docs")
    assert {"report.md", "report.html", "report.tex", "report.json", "results.jsonl"} <= set(first)
    assert "figures/figure-1.png" in first
    # In another order, and with what only concerns running.
    assert main([words[0], "--report", "--processes", "1", "--keep-runs", *words[1:-1]]) == 0
    assert report_files(tmp_path / "docs") == first
    command = json.loads(first["report.json"])["stamp"]["command"]
    expected = f"llava-mole reproduce --study --scale tiny --experiments {measured} --report"
    assert command == expected
    assert not (tmp_path / "out/report").exists()


def test_claims_that_could_not_be_judged_are_said_before_anything_runs(tmp_path, capsys):
    experiments = write_experiments(tmp_path)
    claims = experiments / "claims.yaml"
    claims.write_text(re.sub(r"(?m)^  tiny: .*\n", "", claims.read_text()))
    words = ["reproduce", "--scale", "tiny", "--experiments", str(experiments)]
    assert main([*words, "--rows", "llava-mix-1-1-0"]) == 2
    err = capsys.readouterr().err
    assert f"{claims}: " in err
    assert "margin" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--seeds", "1"], ["--claims", "headline"]])
def test_a_part_of_the_study_leaves_its_report_alone(measured, tmp_path, words):
    call = ["reproduce", "--scale", "tiny", "--experiments", str(measured), "--study", "--report"]
    assert main([*call, *words]) == 0
    assert {path.name for path in (tmp_path / "docs").glob("[!.]*")} == {"results.jsonl"}
    assert (tmp_path / "out/report/report.md").is_file()


def test_a_parts_report_leaves_the_studys_alone(measured, tmp_path):
    words = ["reproduce", "--scale", "tiny", "--experiments", str(measured)]
    part = ["--table", "2", "3", "--rows", "llava-mole-k5", "--seeds", "1", "--report"]
    assert main([*words, *part]) == 0
    assert {path.name for path in (tmp_path / "docs").glob("[!.]*")} == {"results.jsonl"}
    command = json.loads((tmp_path / "out/report/report.json").read_text())["stamp"]["command"]
    asked = "--table 2 3 --rows llava-mole-k5 --scale tiny --seeds 1"
    assert command == f"llava-mole reproduce {asked} --experiments {measured} --report"


def test_an_output_takes_the_studys_report_too(measured, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "docs/results.jsonl").rename(other / "results.jsonl")
    words = ["reproduce", "--scale", "tiny", "--experiments", str(measured), "--study"]
    assert main([*words, "--output", str(other), "--report"]) == 0
    assert (other / "report/report.md").is_file()
    assert not (tmp_path / "docs/report.md").exists()
