"""The reports in docs/study say what the result lines beside them say."""

import hashlib
import json

import pytest

from tests.reproduce.paper_rows import EXPERIMENTS

STUDY = EXPERIMENTS.parents[1] / "docs/study"


@pytest.fixture(scope="module")
def lines():
    return [json.loads(text) for text in (STUDY / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("folder", [".", "headline"])
def test_a_shipped_report_shows_the_scores_of_the_shipped_results(lines, folder):
    report = json.loads((STUDY / folder / "report.json").read_text())
    seeds = set(report["stamp"]["seeds"])

    measured = 0
    for row in report["rows"]:
        expected = {
            line["seed"]: line["scores"]
            for line in lines
            if row["name"] in line["rows"] and line["seed"] in seeds
        }
        for column, shown in row.get("measured", {}).items():
            if column not in report["margins"]:
                continue
            each = dict(zip(shown["seeds"], shown["each"], strict=True))
            assert each == {seed: scores[column]["value"] for seed, scores in expected.items()}, (
                f"{row['name']}, {column}: report again with {report['stamp']['command']!r}"
            )
            assert shown["value"] == pytest.approx(sum(each.values()) / len(each))
            measured += 1
        assert bool(row.get("measured")) == bool(expected), row["name"]
    assert measured


def test_the_whole_study_rests_on_every_shipped_result(lines):
    stamp = json.loads((STUDY / "report.json").read_text())["stamp"]
    hashes = sorted(line["hash"] for line in lines)

    assert stamp["configs"] == hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]
