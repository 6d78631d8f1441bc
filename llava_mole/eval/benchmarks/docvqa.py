"""DocVQA (Mathew et al. 2021) by ANLS, as UReader evaluates it; 5,188 test questions.

UReader's file ``ureader_json/test_DocVQA.jsonl`` has one answer a question. Its evaluation takes
the best over all accepted ones, which are in ``benchmark_files/DUE/DocVQA/test/document.jsonl``
(``{"name": DOCUMENT, "annotations": [{"key": QUESTION, "values": [{"value_variants": [...]}]}]}``);
``benchmark_files/DONUT/DocVQA/test/metadata.jsonl``, line for line beside UReader's file, has the
document and the question as DUE spells them. Without those files the one answer is the reference,
and scores can only be lower.

DocVQA's own ``val_v1.0*.json`` (``{"data": [{"questionId", "question", "image", "answers"}]}``) is
read too; the answers of its test split are not public.
"""

import json
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path

from llava_mole.data.records import Record
from llava_mole.data.sources.ureader import UReaderSource
from llava_mole.eval.benchmarks.benchmark import (
    Benchmark,
    Rule,
    first_folder,
    jsonl,
    read_json,
    rows,
    source_items,
    text_field,
    text_list,
    whole,
)
from llava_mole.eval.metrics import anls
from llava_mole.eval.questions import Question, asked, from_record

_PLACES = ("ureader", "docvqa", "")


def _read(folder: Path) -> list[Question]:
    for place in ("docvqa", "DocVQA", ""):
        if files := sorted((folder / place).glob("val_v1.0*.json")):
            return _validation(files[0])
    root = first_folder("docvqa", folder, _PLACES, "ureader_json/test_DocVQA.jsonl")
    source = UReaderSource(str(root), "test", ("DocVQA",))
    records = whole(source_items(source))
    references = _references(folder, root, records)
    return [
        from_record(record, source.image_root(), "test", accepted)
        for record, accepted in zip(records, references, strict=True)
    ]


def _references(folder: Path, root: Path, records: list[Record]) -> list[tuple[str, ...]]:
    """Accepted answers of each record; the one it has where DUE's file is not there."""
    bases = [base / "benchmark_files" for base in (root, folder)]
    base = next((b for b in bases if (b / "DUE/DocVQA/test/document.jsonl").is_file()), None)
    if base is None:
        return [() for _ in records]
    file = base / "DUE/DocVQA/test/document.jsonl"
    # A question may stand twice for one document; UReader pairs them in order.
    accepted: dict[tuple[str, str], deque[tuple[str, ...]]] = defaultdict(deque)
    for line, row in jsonl(file):
        place = f"{file}:{line}"
        try:
            for annotation in row["annotations"]:
                variants = text_list(annotation["values"][0], "value_variants", place)
                accepted[row["name"], annotation["key"]].append(variants)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{place}: not DUE's layout ({error!r}); fetch it again") from None
    names = _spelled(base / "DONUT/DocVQA/test/metadata.jsonl", records)
    found = []
    for record, key in zip(records, names, strict=True):
        if not accepted[key]:
            raise record.bad(
                f"no answers to {key[1]!r} about {key[0]!r} in {file}; both files "
                "must be of the same release"
            )
        found.append(accepted[key].popleft())
    return found


def _spelled(metadata: Path, records: list[Record]) -> list[tuple[str, str]]:
    """Document and question of each record, as DUE spells them."""
    if not metadata.is_file():
        return [
            (Path(str(record.images[0])).stem, record.turns[-2].content.split("\n", 1)[-1])
            for record in records
        ]
    lines = jsonl(metadata)
    if len(lines) != len(records):
        raise ValueError(
            f"{metadata}: {len(lines)} lines beside {len(records)} questions of test_DocVQA.jsonl; "
            "both files must be of the same release"
        )
    names = []
    for line, row in lines:
        try:
            truth = json.loads(row["ground_truth"])
            name = row["file_name"].split("/")[-1].split(".pdf")[0]
            names.append((name, truth["gt_parses"][0]["question"]))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{metadata}:{line}: not Donut's layout ({error!r})") from None
    return names


def _validation(file: Path) -> list[Question]:
    content = read_json(file)
    data = content.get("data") if isinstance(content, dict) else None
    return [
        Question(
            id=text_field(row, ("questionId",), place),
            part="val",
            dataset="",
            turns=asked(text_field(row, ("question",), place)),
            references=text_list(row, "answers", place),
            image=text_field(row, ("image",), place),
            image_root=str(file.parent),
            place=place,
        )
        for _, place, row in rows(file, data, ", key 'data'")
    ]


_RULE = Rule(
    "ANLS (DUE, as UReader calls it)",
    lambda prediction, references: anls(prediction.replace("\n", ""), references, "due"),
    lambda prediction, references: anls(prediction, references, "lmms"),
)


def _remark(questions: Sequence[Question]) -> str:
    if any(len(question.references) > 1 for question in questions):
        return ""
    return (
        "One accepted answer a question, as UReader's file has it. Published scores take the best "
        "over all accepted ones (benchmark_files/DUE), so these can only be lower."
    )


DOCVQA = Benchmark(
    name="docvqa",
    title="DocVQA",
    read=_read,
    rules={"test": _RULE, "val": _RULE},
    total="DocQA",
    published={"test": 5188, "val": 5349},
    notes=("The second score is ANLS by lmms-eval's rule: spaces collapsed, 0.5 kept.",),
    remark=_remark,
)
