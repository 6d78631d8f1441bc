"""PathVQA's test set (He et al. 2020), scored as LLaVA-Med does: open by recall, yes/no closed.

The authors' own copy has 3,370 open and 3,391 yes/no questions, which the paper's figures are of
(every closed score in its tables is a multiple of 1/3391); the hub's copy lost duplicates. A
question with several answers is as many questions, as in the published counts.
"""

import dataclasses
from pathlib import Path

from llava_mole.data.sources.pathvqa import PathVQASource
from llava_mole.eval.benchmarks.benchmark import Benchmark, Rule, source_items, whole
from llava_mole.eval.metrics import closed_accuracy, open_recall
from llava_mole.eval.questions import Question, from_record


def _read(folder: Path) -> list[Question]:
    inner = folder / "pathvqa"
    source = PathVQASource(str(inner if inner.is_dir() else folder), "test")
    questions = []
    for record in whole(source_items(source)):
        part = "Closed" if record.task == "yes/no" else "Open"
        question = from_record(record, source.image_root(), part)
        questions.append(dataclasses.replace(question, dataset=""))
    return questions


def _open(rule: str):
    return lambda prediction, references: open_recall(prediction, references[0], rule)


def _closed(rule: str):
    return lambda prediction, references: float(closed_accuracy(prediction, references[0], rule))


PATHVQA = Benchmark(
    name="pathvqa",
    title="PathVQA",
    read=_read,
    rules={
        "Open": Rule("open: recall (LLaVA-Med)", _open("llava-med"), _open("strict")),
        "Closed": Rule("closed: accuracy (LLaVA-Med)", _closed("llava-med"), _closed("strict")),
    },
    published={"Open": 3370, "Closed": 3391},
)
