"""The written report: what stands in it, and what must not."""

import json
import re
from types import SimpleNamespace

import pytest

from llava_mole.reproduce.claims import PAPER_COLUMNS
from llava_mole.reproduce.report import write
from llava_mole.reproduce.report.content import listed, number, signed
from tests.reproduce.paper_rows import (
    CLAIMS,
    TINY,
    ablation_rows,
    measured,
    paper_rows,
    rate_rows,
)
from tests.reproduce.report.conftest import LABEL, STAMP, tiny_results

FILES = {"report.md", "report.html", "report.tex", "report.json", "figures"}


def section(text, title):
    """A Markdown report's part under a heading."""
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_files_and_nothing_else(tiny):
    assert {path.name for path in tiny.iterdir()} == FILES


def test_the_label_stands_above_every_part(tiny):
    text = (tiny / "report.md").read_text(encoding="utf-8")
    shown = LABEL.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = shown.replace("_", "\\_")
    parts = re.split(r"^## ", text, flags=re.M)
    assert len(parts) > 15
    for part in parts[1:]:
        assert part.split("\n")[2] == f"**{shown}**"
    assert (tiny / "report.tex").read_text(encoding="utf-8").count("TINY SCALE") >= len(parts)
    page = (tiny / "report.html").read_text(encoding="utf-8")
    assert page.count('<p class="label">TINY SCALE') == len(parts) - 1


@pytest.mark.parametrize("file", ["report.md", "report.html", "report.tex"])
def test_no_value_of_the_paper_beside_a_tiny_one(tiny, file):
    text = (tiny / file).read_text(encoding="utf-8")
    # Scores that only the paper has: Table 2 row 15, row 13, and Table 3 row 10.
    for value in ("303.6", "42.36", "313.6", "paper 3"):
        assert value not in text
    # By print, verdicts and what fails of them.
    assert "−2.70" in text or "$-$2.70" in text


def test_no_value_of_the_paper_in_the_tiny_rows_of_json(tiny):
    found = json.loads((tiny / "report.json").read_text(encoding="utf-8"))
    assert all("paper" not in row for row in found["rows"])
    assert found["label"] == LABEL
    assert found["stamp"]["config"] == {"llava-mole-1-1-1": "ab12cd34"}


def test_the_papers_value_the_measured_one_and_their_difference(paper):
    text = (paper / "report.md").read_text(encoding="utf-8")
    row = line(section(text, "Table 2"), "| 15")
    assert "304.60<br>\\[302.60, 306.60\\]<br>paper 303.6 (+1.00)" in row
    assert "49.80<br>\\[47.80, 51.80\\]<br>paper 48.8 (+1.00)" in row
    # Table 3 is not measured: the paper's value alone.
    assert "–<br>paper 313.6" in line(section(text, "Table 3"), "| 10")


def test_what_is_missing_is_said(tiny, paper):
    text = (tiny / "report.md").read_text(encoding="utf-8")
    row = line(section(text, "Table 2"), "| 10")
    # Seeds, three columns, routing.
    assert row.count("–") == 5
    part = section(text, "Table 2")
    assert "> Not measured: LLAVA-1.5-OFFICIAL and LLAVA-MIX-1-2-1." in part
    assert "> Quoted as printed, never measured: LLAVA-MED-OFFICIAL (row 2)." in part
    claim = line(section(text, "The claims"), "| C1")
    assert "not measured" in claim
    assert "Not measured: LLAVA-MIX-1-2-1." in claim
    part = section((paper / "report.md").read_text(encoding="utf-8"), "Table 4")
    assert part.count("> Not measured: LLAVA-MOLE-K2, ") == 1


def test_the_papers_slips_stand_beside_its_tables(paper):
    part = section((paper / "report.md").read_text(encoding="utf-8"), "Table 2")
    assert "> Row 10 prints All 292.0 where its five columns sum to 292.6" in part


def test_claims_by_print_and_as_measured(tiny):
    text = section((tiny / "report.md").read_text(encoding="utf-8"), "The claims")
    row = line(text, "| C2")
    failing = "LLAVA-MOLE-1-2-1 − LLAVA-1.5-1-0-0, All: −2.70, expected &gt; −2.0"
    assert f"not supported<br>1 comparison fails, of 16<br>{failing}" in row
    assert row.rstrip(" |").endswith("3")
    assert "not in the paper" in line(text, "| C8")


def test_each_comparison_has_its_interval_seeds_and_control(tiny):
    found = json.loads((tiny / "report.json").read_text(encoding="utf-8"))
    (claim,) = [claim for claim in found["claims"] if claim["name"] == "C2"]
    first = claim["comparisons"][0]
    text = section((tiny / "report.md").read_text(encoding="utf-8"), f"C2: {claim['verdict']}")
    row = line(text, "| LLAVA-MOLE-1-1-1 − LLAVA-1.5-1-0-0")
    for difference in (first["difference"], first["equal_parameters_instead"]):
        ends = f"\\[{signed(difference['low'])}, {signed(difference['high'])}\\]"
        assert f"{signed(difference['value'])} {ends}" in row
    assert "> −2.0" in row.replace("&gt;", ">")
    assert first["difference"]["seeds"] == [0, 1, 2]


def test_costs_and_stamp(tiny):
    text = (tiny / "report.md").read_text(encoding="utf-8")
    assert "8,000,000" in line(section(text, "What the runs took"), "| LLAVA-MOLE-DENSE-K2")
    assert "ab12cd34" in line(section(text, "Made of"), "| config.llava-mole-1-1-1")
    assert "0, 1, 2" in line(section(text, "Made of"), "| seeds")


def test_the_headline_alone(tmp_path, claims_file):
    scale = SimpleNamespace(name="tiny", columns=TINY, label=LABEL)
    write(scale, paper_rows(), tiny_results(), claims_file, tmp_path, STAMP, selection=["headline"])
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    claims = {claim["name"]: claim for claim in found["claims"]}
    assert set(claims) == {"C1", "C2", "C8", "C9", "C10"}
    assert "only its headline comparisons" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert claims["C1"]["verdict"] != "not measured"


def test_nothing_measured_and_some_rows_only(tmp_path, claims_file):
    scale = SimpleNamespace(name="tiny", columns=TINY, label=LABEL)
    rows = [row for row in paper_rows() if row.table == "2"]
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/old.png").write_bytes(b"")
    write(scale, rows, {}, claims_file, tmp_path, {})
    assert not list((tmp_path / "figures").iterdir())
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {claim["verdict"] for claim in found["claims"]} == {"not measured"}
    # By print, claims of tables that are not shown have their verdicts all the same.
    by_print = {claim["name"]: claim["by_print"] for claim in found["claims"]}
    assert (by_print["C5"], by_print["C6"]) == ("supported", "not supported")
    assert by_print["C8"] == "not in the paper"
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "LLaVA-MoLE\\[1,1\\]-R32 − LLaVA-Mix\\[1,1\\]-R64" in text
    assert "Table 3" not in re.findall(r"^## (.*)$", text, re.M)


def test_an_unknown_row_is_an_error_that_leaves_no_report(tmp_path):
    file = tmp_path / "claims.yaml"
    text = CLAIMS.read_text(encoding="utf-8")
    file.write_text(text.replace("llava-mole-1-2-1", "llava-mole-1-2-2"), encoding="utf-8")
    scale = SimpleNamespace(name="tiny", columns=TINY, label=LABEL)
    with pytest.raises(ValueError, match="unknown row 'llava-mole-1-2-2'; did you mean"):
        write(scale, paper_rows(), {}, file, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_a_missing_margin_names_file_and_key(tmp_path):
    file = tmp_path / "claims.yaml"
    text = CLAIMS.read_text(encoding="utf-8")
    file.write_text(text.replace("  tiny: {general: 2.0, document", "  tiny: {document"), "utf-8")
    scale = SimpleNamespace(name="tiny", columns=TINY, label=LABEL)
    with pytest.raises(ValueError, match=r"claims.yaml: .* add margins\.tiny\.general"):
        write(
            scale,
            [*paper_rows(), *ablation_rows(), *rate_rows()],
            {},
            file,
            tmp_path / "out",
            {},
        )


def test_the_same_results_give_the_same_files(tmp_path, claims_file):
    scale = SimpleNamespace(name="paper", columns=PAPER_COLUMNS, label="")
    results = {"llava-mole-k2": measured({0: {"All": 300.0}}), "llava-mole-k3": measured({})}
    found = []
    for name in ("a", "b"):
        write(
            scale,
            paper_rows(),
            results,
            claims_file,
            tmp_path / name,
            STAMP,
            selection=["headline"],
        )
        files = sorted((tmp_path / name).rglob("*.*"))
        found.append([(path.name, path.read_bytes()) for path in files])
    assert found[0] == found[1]


def test_numbers():
    assert [number(x) for x in (-1.304, 0.0, -0.001, 12)] == ["−1.30", "0.00", "0.00", "12.00"]
    assert [signed(x) for x in (-1.3, 0.001, -0.001, 1)] == ["−1.30", "0.00", "0.00", "+1.00"]
    assert listed(["a, b", "c", "d"]) == "a, b; c; and d"
    assert [listed(x) for x in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]
