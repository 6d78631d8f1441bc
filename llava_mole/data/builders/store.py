"""How a built set is written: LLaVA JSONL beside its images, whole or not at all.

A set is a folder with ``pretrain.jsonl``, ``train.jsonl``, ``test.jsonl``, ``images/`` and, written
last, ``built.json``: what it was built from. A folder with the same stamp is left as it is, any
other is built anew beside it and moved into place.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FORMAT_VERSION = 2
SPLITS = ("pretrain", "train", "test")
STAMP = "built.json"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Records of each split.

    Attributes:
        pretrain: captions of stage 1, of the first images of ``train``: as in LLaVA, both stages
            may show an image, and the vision tower's features of it are computed once.
        train: conversations of stage 2, several questions about one image each.
        test: questions, one an image.
    """

    pretrain: int
    train: int
    test: int

    def __post_init__(self) -> None:
        """Raises ValueError for a split without records."""
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise ValueError(f"sizes.{split} is {getattr(self, split)}; it must be >= 1.")
        if self.pretrain > self.train:
            raise ValueError(
                f"sizes.pretrain is {self.pretrain}; it captions train's {self.train} images, so "
                "it can't be more."
            )


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about an image with its short answer; ``task`` groups questions in reports."""

    task: str
    text: str
    answer: str


def conversation(
    id: str, image: str, source: str, questions: Iterable[Question], task: str | None = None
) -> dict[str, Any]:
    """One LLaVA record: the image in front of the first question, all questions in order.

    Args:
        id: unique in its file.
        image: path relative to the set's folder.
        source: name of the set.
        questions: at least one.
        task: the record's task; the last question's if ``None``.
    """
    questions = list(questions)
    assert questions, id
    turns: list[dict[str, str]] = []
    for question in questions:
        turns.append({"from": "human", "value": question.text})
        turns.append({"from": "gpt", "value": question.answer})
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    task = task or questions[-1].task
    return {"id": id, "image": image, "source": source, "task": task, "conversations": turns}


def caption(id: str, image: str, source: str, text: str) -> dict[str, Any]:
    """One stage-1 record: a bare ``<image>``, then its caption."""
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": text}]
    return {"id": id, "image": image, "source": source, "task": "caption", "conversations": turns}


def build_once(
    output_dir: str | Path,
    settings: dict[str, Any],
    produce: Callable[[Path], dict[str, list[dict[str, Any]]]],
) -> None:
    """Builds a set unless ``output_dir`` already holds it.

    Args:
        output_dir: the set's folder; a set of other settings in it is replaced.
        settings: everything the content depends on, as JSON values.
        produce: writes images below ``images/`` of the folder it is given and returns the records
            of every split.

    Raises:
        ValueError: ``output_dir`` exists but is not a set that a builder wrote.
    """
    output_dir = Path(output_dir)
    stamp = _stamp(settings)
    if is_built(output_dir, stamp):
        return
    if output_dir.exists() and any(output_dir.iterdir()) and not (output_dir / STAMP).exists():
        raise ValueError(
            f"{output_dir} has files but no {STAMP}, so no builder wrote it; move it away or name "
            "another output folder."
        )
    partial = output_dir.with_name(output_dir.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    splits = produce(partial)
    assert set(splits) == set(SPLITS), set(splits)
    for split, records in splits.items():
        with open(partial / f"{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (partial / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(output_dir, ignore_errors=True)
    partial.rename(output_dir)


def is_built(output_dir: str | Path, stamp: dict[str, Any]) -> bool:
    """Whether ``output_dir`` is a complete set with this stamp."""
    file = Path(output_dir) / STAMP
    if not file.exists():
        return False
    try:
        return json.loads(file.read_text(encoding="utf-8")) == stamp
    except ValueError:
        return False


def _stamp(settings: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps({"format": FORMAT_VERSION, **settings}, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"format": FORMAT_VERSION, "settings": settings, "sha256": digest}
