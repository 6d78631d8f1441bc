"""What is noted beside the paper's tables, computed from its printed numbers."""

import pytest

from llava_mole.reproduce.report.notes import TABLES
from tests.reproduce.paper_rows import printed_tables

ABILITIES = ("VR", "VP", "VKA", "VC", "OH")


def test_which_rows_do_not_sum():
    off = {}
    for table in (2, 3, 4, 5):
        for number, row in enumerate(printed_tables()[f"table{table}"]["rows"], start=1):
            parts = [row["scores"][name] for name in ABILITIES]
            if all(isinstance(part, float) for part in parts):
                off[table, number] = round(sum(parts) - row["scores"]["All"], 6)
    # Five numbers rounded to 0.1 and their rounded sum.
    beyond_rounding = {row: value for row, value in off.items() if abs(value) > 6 * 0.05}
    assert beyond_rounding == {(2, 10): 0.6}
    others = {row: value for row, value in off.items() if 0.1 < abs(value) <= 6 * 0.05}
    assert others == {(3, 8): -0.2}
    assert "prints All 292.0 where its five columns sum to 292.6" in TABLES["2"][1]
    assert "prints All 310.2 where its five columns sum to 310.0" in TABLES["3"][0]


def test_figure_1_and_the_improvement_of_the_text_are_row_11s():
    rows = {row["id"]: row for row in printed_tables()["table2"]["rows"]}
    general = {number: row["scores"]["All"] for number, row in rows.items()}
    assert [number for number, value in general.items() if value == 295.8] == [11]
    assert rows[11]["epochs"] == 2
    assert "295.8 (Figure 1) is row 11" in TABLES["2"][2]
    assert general[11] - general[10] == pytest.approx(3.8)
    assert general[11] - general[8] == pytest.approx(-1.3)
    assert "is 295.8 against row 10's 292.0" in TABLES["2"][3]
    assert "row 11 is 1.3 lower" in TABLES["2"][3]


def test_rows_1_and_2_are_not_trained():
    rows = printed_tables()["table2"]["rows"]
    assert [row["lambda_general"] for row in rows[:3]] == [None, None, 1.0]
    assert "Row 1 is the official" in TABLES["2"][0]
    assert rows[1]["model"] == "LLaVA-Med*"


def test_row_5_of_table_5_ran_out_of_memory():
    assert printed_tables()["table5"]["rows"][4]["scores"]["All"] == "OOM"
    assert TABLES["5"][0].startswith("Row 5, dense with 3 experts, ran out of memory")
