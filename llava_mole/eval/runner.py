"""Asks a model every question of a set and keeps each answer at once.

Answers are appended to a JSONL file as they come, so a run that was stopped goes on where it was;
the same questions in the same order give the same file.
"""

import collections
import dataclasses
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava_mole.data.records import Record
from llava_mole.eval.metrics import exact_match, wilson_interval
from llava_mole.eval.questions import plain_text, prompt_of, question_of, reference_of


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question's outcome; ``hit`` is whether prediction and reference match."""

    id: str
    task: str
    question: str
    reference: str
    prediction: str
    hit: bool


@dataclasses.dataclass(frozen=True)
class Score:
    """Accuracy in [0, 1] over ``total`` questions with its 95 % Wilson interval."""

    hits: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of hits, 0 for an empty set."""
        return self.hits / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.hits, self.total)

    def clearly_above(self, other: "Score") -> bool:
        """Whether the two 95 % intervals don't even touch, and this one is the higher."""
        return self.interval[0] > other.interval[1]


def ask(
    records: Sequence[Record],
    answer_batch: Callable[[list[tuple[Any, list[dict[str, str]]]]], list[str]],
    image_of: Callable[[Record], Any],
    file: Path,
    batch_size: int = 32,
    progress: str | None = None,
) -> list[Answer]:
    """Answers every record's last turn, keeping what ``file`` already holds.

    Args:
        records: the questions.
        answer_batch: takes ``(image or None, prompt turns)`` pairs, returns their answers.
        image_of: a record's image as ``answer_batch`` wants it.
        file: JSONL of answers, appended and flushed to disk batch by batch.
        batch_size: questions a call of ``answer_batch``.
        progress: label of the progress bar, none if ``None``.

    Raises:
        ValueError: ``file`` holds answers to other questions than ``records``.
    """
    answers = _kept(file, records)
    todo = records[len(answers) :]
    bar = tqdm(total=len(records), initial=len(answers), desc=progress, disable=progress is None)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a", encoding="utf-8") as out, bar:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            prompts = [(image_of(record), prompt_of(record)) for record in batch]
            for record, prediction in zip(batch, answer_batch(prompts), strict=True):
                answers.append(_score(record, prediction))
                out.write(json.dumps(dataclasses.asdict(answers[-1]), ensure_ascii=False) + "\n")
            out.flush()
            os.fsync(out.fileno())
            bar.update(len(batch))
    return answers


def score(answers: Sequence[Answer]) -> Score:
    """Hits and total of ``answers``."""
    return Score(sum(answer.hit for answer in answers), len(answers))


def majority(records: Sequence[Record], training: Sequence[Record]) -> Score:
    """Score of always giving a question's most frequent answer in the training set.

    Every turn of a training record counts. The same question text decides where training has it,
    else the same task, else all of training: the best that can be done from the words alone.
    """
    by_question: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    by_task: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    overall: collections.Counter = collections.Counter()
    for record in training:
        for asked, answered in zip(record.turns[::2], record.turns[1::2], strict=True):
            for counter in (by_question[plain_text(asked)], by_task[record.task], overall):
                counter[answered.content] += 1
    hits = 0
    for record in records:
        counter = by_question.get(question_of(record)) or by_task.get(record.task) or overall
        hits += exact_match(counter.most_common(1)[0][0], reference_of(record))
    return Score(hits, len(records))


def with_shuffled_images(records: Sequence[Record], seed: int) -> list[Record]:
    """The same questions, each beside the images of another record that shows something else.

    What a model still scores here it knows from the words alone.

    Raises:
        ValueError: a record for which no other image is there to take.
    """
    chooser = random.Random(seed)
    distinct = sorted({record.images for record in records})
    shuffled = []
    for record in records:
        others = [
            images
            for images in distinct
            if images != record.images and len(images) == len(record.images)
        ]
        if not others:
            raise ValueError(
                f"{record.file}:{record.line}: record {record.id!r}: no other record has "
                f"{len(record.images)} image(s) that differ; shuffling images needs at least two: "
                "leave the record out, or don't shuffle this set"
            )
        shuffled.append(dataclasses.replace(record, images=chooser.choice(others)))
    return shuffled


def table(results: Mapping[str, Mapping[str, Score]]) -> str:
    """A text table: one line a set, one column a kind of score, intervals beside them."""
    kinds = list(dict.fromkeys(kind for scores in results.values() for kind in scores))
    width = max([len("set"), *map(len, results)])
    lines = [f"{'set':{width}}  {'n':>5}" + "".join(f"  {kind:>22}" for kind in kinds)]
    for name, scores in results.items():
        total = next(iter(scores.values())).total
        cells = []
        for kind in kinds:
            cell = "-"
            if kind in scores:
                low, high = (100 * end for end in scores[kind].interval)
                cell = f"{100 * scores[kind].accuracy:.1f} [{low:.1f}, {high:.1f}]"
            cells.append(f"  {cell:>22}")
        lines.append(f"{name:{width}}  {total:>5}" + "".join(cells))
    return "\n".join(lines)


def _kept(file: Path, records: Sequence[Record]) -> list[Answer]:
    """Answers already in ``file``; a last line that was cut off by a crash is dropped from it."""
    if not file.exists():
        return []
    raw = file.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with open(file, "r+b") as handle:
            handle.truncate(len(whole))
    answers = [Answer(**json.loads(line)) for line in whole.decode("utf-8").splitlines()]
    expected = [(record.id, question_of(record)) for record in records]
    if [(answer.id, answer.question) for answer in answers] != expected[: len(answers)]:
        raise ValueError(f"{file}: holds answers to other questions; delete it to ask afresh")
    return answers


def _score(record: Record, prediction: str) -> Answer:
    reference = reference_of(record)
    hit = exact_match(prediction, reference)
    return Answer(record.id, record.task, question_of(record), reference, prediction, hit)
