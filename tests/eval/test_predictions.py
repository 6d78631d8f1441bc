"""Answers from a file: every question once, or an error that names file, line and id."""

import json

import pytest

from llava_mole.eval.predictions import read_predictions
from llava_mole.eval.questions import Question, asked

QUESTIONS = [Question(id, "p", "", asked("?"), ("x",), None, ".") for id in ("1", "2", "3")]


def write(path, rows, array=False):
    path.write_text(json.dumps(rows) if array else "".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(
    ("id_key", "text_key"), [("id", "prediction"), ("question_id", "text"), ("id", "answer")]
)
def test_all_known_forms_in_any_order(tmp_path, id_key, text_key, array):
    rows = [{id_key: n, text_key: f"answer {n}", "model_id": "m"} for n in (3, 1, 2)]
    answers = read_predictions(write(tmp_path / "p.json", rows, array), QUESTIONS)
    assert [(a.id, a.prediction) for a in answers] == [(n, f"answer {n}") for n in "123"]


def test_our_own_file_with_a_failed_image(tmp_path):
    rows = [{"id": "1", "prediction": None, "error": "gone"}, {"id": "2", "prediction": ""},
            {"id": "3", "prediction": "c"}]  # fmt: skip
    answers = read_predictions(write(tmp_path / "p.jsonl", rows), QUESTIONS)
    assert (answers[0].prediction, answers[0].error) == (None, "gone")
    assert answers[1].prediction == ""


GOOD = [{"id": n, "prediction": "x"} for n in "123"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (GOOD[:1], r"p\.jsonl: 2 of 3 questions have no answer, e\.g\. '2', '3'; add them"),
        ([*GOOD, GOOD[1]], r"p\.jsonl:4: id '2' stands in line 2 already"),
        ([*GOOD, {"id": "9", "prediction": "x"}], r"p\.jsonl:4: no question has the id '9'"),
        ([{"prediction": "x"}], r"p\.jsonl:1: no 'id' or 'question_id'; it has prediction"),
        ([{"id": "1"}], r"p\.jsonl:1: no 'prediction' or 'text'"),
        ([{"id": "1", "prediction": 3}], r"p\.jsonl:1: the answer to '1' must be a text"),
        ([{"id": "1", "prediction": None}], r"p\.jsonl:1: the answer to '1' is null"),
        ([{"id": ["1"], "prediction": "x"}], r"p\.jsonl:1: the id must be"),
        (["text"], r"p\.jsonl:1: must be a JSON object"),
        ([], r"3 of 3 questions have no answer"),
    ],
)
def test_what_does_not_match_is_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_predictions(write(tmp_path / "p.jsonl", rows), QUESTIONS)


def test_no_json_and_no_file(tmp_path):
    (tmp_path / "p.jsonl").write_text("answer\n")
    with pytest.raises(ValueError, match=r"p\.jsonl:1: not JSON"):
        read_predictions(tmp_path / "p.jsonl", QUESTIONS)
    (tmp_path / "p.json").write_text("[1, ")
    with pytest.raises(ValueError, match="not readable as JSON"):
        read_predictions(tmp_path / "p.json", QUESTIONS)
    with pytest.raises(ValueError, match="no such file"):
        read_predictions(tmp_path / "q.json", QUESTIONS)


def test_a_slice_takes_its_own_out_of_a_whole_file(tmp_path):
    file = write(tmp_path / "p.jsonl", GOOD)
    assert [a.id for a in read_predictions(file, QUESTIONS[:2], sliced=True)] == ["1", "2"]
    with pytest.raises(ValueError, match="no question has the id '3'"):
        read_predictions(file, QUESTIONS[:2])
