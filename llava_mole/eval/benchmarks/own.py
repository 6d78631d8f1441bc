"""A question set of one's own, with a metric of one's choice.

Two forms, told apart by their rows:

* LLaVA JSON or JSONL, or a prepared folder: the last turn of each conversation is the reference.
* LLaVA's question files (TextVQA's): JSONL of ``{"question_id", "image", "text", "answers"}``, with
  ``answers`` a text or a list, or ``answer``; ``image`` may be left out.
"""

import dataclasses
from pathlib import Path

from llava_mole.data.config import DatasetConfig
from llava_mole.data.prepared.recordset import open_dataset
from llava_mole.eval.benchmarks.benchmark import Benchmark, Rule, jsonl, text_field, text_list
from llava_mole.eval.metrics import METRICS
from llava_mole.eval.questions import Question, asked, from_record

_ID, _TEXT = ("question_id", "id"), ("text", "question")


def own_set(name: str, metric: str = "exact_match", image_root: str | None = None) -> Benchmark:
    """A benchmark that reads the user's file.

    Args:
        name: shown in reports.
        metric: a key of `llava_mole.eval.metrics.METRICS`.
        image_root: folder of the images; default: the file's own.

    Raises:
        ValueError: no such metric.
    """
    if metric not in METRICS:
        raise ValueError(f"--metric {metric!r}: choose one of {', '.join(METRICS)}")

    def read(file: Path) -> list[Question]:
        form = file.is_file() and _is_question_file(file)
        questions = (_question_file if form else _conversations)(file, name, image_root)
        single = next((q for q in questions if len(q.references) < 2), None)
        if metric == "vqa_accuracy" and single is not None:
            raise ValueError(
                f"{single.place}: --metric vqa_accuracy compares the answers of several people, "
                "and here is one; take exact_match"
            )
        return questions

    return Benchmark(
        name=name,
        title=name,
        read=read,
        rules={name: Rule(metric, METRICS[metric])},
        total=name,
        max_new_tokens=128,
    )


def _is_question_file(file: Path) -> bool:
    """Whether the first row is a question of LLaVA's question files."""
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        first = next((line for line in lines if not line.isspace()), "")
    if not first.startswith("{") or '"conversations"' in first:
        return False
    return any(f'"{key}"' in first for key in _TEXT)


def _question_file(file: Path, name: str, image_root: str | None) -> list[Question]:
    questions = []
    for line, row in jsonl(file):
        place = f"{file}:{line}"
        image = None if row.get("image") is None else text_field(row, ("image",), place)
        key = "answers" if "answers" in row else "answer"
        text = text_field(row, _TEXT, place).replace("<image>", "").strip()
        questions.append(
            Question(
                id=text_field(row, _ID, place),
                part=name,
                dataset=str(row.get("category", "")),
                turns=asked(text, image is not None),
                references=text_list(row, key, place),
                image=image,
                image_root=str(image_root or file.parent),
                place=place,
            )
        )
    return _only_if_several(questions)


def _conversations(file: Path, name: str, image_root: str | None) -> list[Question]:
    opened = open_dataset(DatasetConfig(name, str(file), image_root))
    if opened.problems:
        raise ValueError(
            f"{len(opened.problems)} question(s) can't be read, the first: {opened.problems[0]}; "
            f"'llava-mole data check {file}' lists them all"
        )
    return _only_if_several(
        [
            dataclasses.replace(from_record(record, opened.image_root, name), dataset=record.task)
            for record in opened.records()
        ]
    )


def _only_if_several(questions: list[Question]) -> list[Question]:
    """Kinds of question get lines of their own where there are at least two."""
    if len({question.dataset for question in questions}) > 1:
        return questions
    return [dataclasses.replace(question, dataset="") for question in questions]
