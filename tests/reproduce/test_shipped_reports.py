"""The reports in docs/study say what the result lines beside them say."""

import hashlib
import json
import re

import pytest

from llava_mole.reproduce.claims import load
from tests.reproduce.paper_rows import CLAIMS, EXPERIMENTS

STUDY = EXPERIMENTS.parents[1] / "docs/study"
HEADLINE_SEEDS = range(10, 18)
DOMAINS = ("general", "document", "biomedicine")


@pytest.fixture(scope="module")
def lines():
    return [json.loads(text) for text in (STUDY / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def scores(lines):
    """Row, seed and domain to score."""
    return {
        (row, line["seed"], domain): score["value"]
        for line in lines
        for row in line["rows"]
        for domain, score in line["scores"].items()
    }


@pytest.mark.parametrize(("folder", "headline"), [(".", False), ("headline", True)])
def test_a_shipped_report_is_made_of_the_shipped_results(lines, folder, headline):
    rows = set(load(CLAIMS, None, ["headline"]).rows())
    hashes = sorted(
        line["hash"]
        for line in lines
        if not headline or (rows & set(line["rows"]) and line["seed"] in HEADLINE_SEEDS)
    )
    report = (STUDY / folder / "report.md").read_text()
    (stamp,) = re.findall(r"^\| configs +\| ([0-9a-f]{12}) ", report, re.MULTILINE)
    assert stamp == hashlib.sha256("".join(hashes).encode()).hexdigest()[:12], (
        "write it again, by the command under 'Made of'"
    )


@pytest.mark.parametrize("name", ["C10", "C11", "C12", "C13", "C14", "C15"])
def test_the_differences_of_means_are_those_of_the_shipped_results(scores, name):
    claims = load(CLAIMS)
    claim = claims.claims[name]
    seeds = claim.seeds.get("tiny", HEADLINE_SEEDS)

    def rows_of(name):
        """The row of each domain: a baseline has one of its own for each."""
        return claims.baselines.get(name) or dict.fromkeys(DOMAINS, name)

    def mean(row, seed):
        rows = rows_of(row)
        return sum(scores[rows[domain], seed, domain] for domain in DOMAINS) / len(DOMAINS)

    def there(row, against, seed):
        """Whether both have run with the seed."""
        names = [one for name in (row, against) for one in rows_of(name).values()]
        return all((name, seed, DOMAINS[0]) in scores for name in names)

    shown = (STUDY / "report.md").read_text().partition(f"## {name}: ")[2].partition("## ")[0]
    found = re.findall(r"\| mean +\|[^|]+\| +([+−][0-9.]+) ", shown)
    expected = []
    for one in claim.comparisons:
        for row in [one.row] if isinstance(one.row, str) else one.row:
            for against in [one.against] if isinstance(one.against, str) else one.against:
                each = [mean(row, s) - mean(against, s) for s in seeds if there(row, against, s)]
                expected.append(f"{sum(each) / len(each):+.2f}".replace("-", "−"))
    assert found == expected


def test_the_study_says_what_its_report_says_of_which_mixtures_lose():
    report = (STUDY / "report.md").read_text()
    said = (STUDY.parent / "study.md").read_text()
    for predictor in (
        "gradient cosine, at initialisation",
        "transfer: score of runs on the others",
    ):
        row = next(line for line in report.splitlines() if line.startswith(f"| {predictor}"))
        _, _, points, _, rho, interval, _ = (cell.strip() for cell in row.split("|"))
        interval = interval.replace("\\", "")
        assert re.search(rf"ρ = {re.escape(f'{rho} {interval}')}\s+over {points}\b", said), (
            predictor
        )
