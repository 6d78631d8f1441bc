"""Answers that were given elsewhere, read from a file to be scored without a model."""

import json
from collections.abc import Sequence
from pathlib import Path

from llava_mole.eval.benchmarks.benchmark import jsonl
from llava_mole.eval.questions import Question
from llava_mole.eval.scores import Answer

ID_KEYS = ("id", "question_id")
TEXT_KEYS = ("prediction", "text", "answer", "model_answer")


def read_predictions(
    file: Path, questions: Sequence[Question], sliced: bool = False
) -> list[Answer]:
    """One answer for each question, in the questions' order.

    Args:
        file: JSONL or a JSON array of ``{"id", "prediction"}``: ours (``answers.jsonl``), LLaVA's
            answer files (``question_id``, ``text``) and their like.
        questions: the benchmark's.
        sliced: whether these are only some of them, so that other ids are no error.

    Raises:
        ValueError: a missing, repeated or unknown id, or a row without id or text; names file,
            line and id.
    """
    ids = {question.id for question in questions}
    found: dict[str, Answer] = {}
    where: dict[str, int] = {}
    unknown = []
    for number, row in _rows(file):
        place = f"{file}:{number}"
        id = _key(row, ID_KEYS, place)
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise ValueError(f"{place}: the id must be a text or a number")
        id = str(id)
        if id in where:
            raise ValueError(
                f"{place}: id {id!r} stands in line {where[id]} already; keep one answer a question"
            )
        where[id] = number
        if id not in ids:
            unknown.append((number, id))
            continue
        text = _key(row, TEXT_KEYS, place)
        error = row.get("error") or ""
        if text is None and not error:
            raise ValueError(f"{place}: the answer to {id!r} is null; write a text, '' for none")
        if text is not None and not isinstance(text, str):
            raise ValueError(f"{place}: the answer to {id!r} must be a text")
        found[id] = Answer(id, text, str(error) if text is None else "")
    first = questions[0].id
    if unknown and not sliced:
        number, id = unknown[0]
        raise ValueError(
            f"{file}:{number}: no question has the id {id!r} ({len(unknown)} such line(s)); ids "
            f"look like {first!r}"
        )
    if missing := [question.id for question in questions if question.id not in found]:
        shown = ", ".join(map(repr, missing[:3]))
        raise ValueError(
            f"{file}: {len(missing)} of {len(questions)} questions have no answer, e.g. {shown}; "
            "add them (an empty text counts as wrong)"
        )
    return [found[question.id] for question in questions]


def _rows(file: Path) -> list[tuple[int, dict]]:
    """Rows with their line, or with their number in an array."""
    if not file.is_file():
        raise ValueError(f"{file}: no such file of predictions")
    with open(file, encoding="utf-8", errors="replace") as text:
        array = text.read(1024).lstrip().startswith("[")
    if not array:
        return jsonl(file)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error})") from None
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{file}: item {number} must be a JSON object")
    return list(enumerate(rows, start=1))


def _key(row: dict, keys: Sequence[str], place: str):
    for key in keys:
        if key in row:
            return row[key]
    raise ValueError(f"{place}: no {' or '.join(map(repr, keys))}; it has {', '.join(row) or '{}'}")
