"""ChartQA's test set (Masry et al. 2022), 2,500 questions, by relaxed accuracy.

UReader's file ``ureader_json/test_ChartQA.jsonl`` or ChartQA's own ``test/test_human.json`` and
``test/test_augmented.json`` (``{"imgname", "query", "label"}``, images in ``test/png``), which
tell the two halves apart.
"""

from pathlib import Path

from llava_mole.data.sources.ureader import UReaderSource
from llava_mole.eval.benchmarks.benchmark import (
    Benchmark,
    Rule,
    first_folder,
    read_json,
    rows,
    source_items,
    text_field,
    whole,
)
from llava_mole.eval.metrics import relaxed_accuracy
from llava_mole.eval.questions import Question, asked, from_record

HALVES = ("human", "augmented")


def _read(folder: Path) -> list[Question]:
    for place in ("chartqa", "ChartQA", "ChartQA Dataset", ""):
        if (folder / place / "test" / "test_human.json").is_file():
            root = folder / place / "test"
            return [question for half in HALVES for question in _half(root, half)]
    root = first_folder(
        "chartqa", folder, ("ureader", "chartqa", ""), "ureader_json/test_ChartQA.jsonl"
    )
    source = UReaderSource(str(root), "test", ("ChartQA",))
    records = whole(source_items(source))
    return [from_record(record, source.image_root(), "test") for record in records]


def _half(root: Path, half: str) -> list[Question]:
    file = root / f"test_{half}.json"
    if not file.is_file():
        raise ValueError(f"chartqa: {file} is missing; both halves of the test set are needed")
    return [
        Question(
            id=f"{half}-{index}",
            part=half,
            dataset="",
            turns=asked(text_field(row, ("query",), place)),
            references=(text_field(row, ("label",), place),),
            image=text_field(row, ("imgname",), place),
            image_root=str(root / "png"),
            place=place,
        )
        for index, place, row in rows(file, read_json(file))
    ]


def _scored(rule: str):
    return lambda prediction, references: float(
        any(relaxed_accuracy(prediction, target, rule) for target in references)
    )


_RULE = Rule(
    "relaxed accuracy (ChartQA, as UReader calls it)", _scored("chartqa"), _scored("strict")
)

CHARTQA = Benchmark(
    name="chartqa",
    title="ChartQA",
    read=_read,
    rules=dict.fromkeys(("test", *HALVES), _RULE),
    total="ChartQA",
    published={"human": 1250, "augmented": 1250, "test": 2500},
)
