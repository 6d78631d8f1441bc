"""The tiny scale's sets: the quickstart's real images, asked the tiny scale's questions.

``DIR/DOMAIN/`` gets, beside the builder's own files, ``plain.jsonl`` (training images, answered in
plain words or letters: what the base model and its projector are trained on), ``code_train.jsonl``
and ``code_test.jsonl`` (answered in the domain's code).
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from llava_mole.data.builders.quickstart import build_all
from llava_mole.data.builders.store import Sizes
from llava_mole.files import replace_json, replace_text
from llava_mole.reproduce.tiny.measure import Measures, measure
from llava_mole.reproduce.tiny.questions import (
    BY_LETTER,
    DOMAINS,
    LETTERS,
    QUESTIONS,
    Question,
    values_of,
)

# As many as easy-VQA has with every question of its own.
SIZES = Sizes(pretrain=1, train=2400, test=600)
TEST_QUESTIONS = 600  # a domain, 150 of each kind
LETTER_EVERY = 4
VERSION = 3
STAMP = "tiny.json"
# An image, the number of its question, and the value that answers it.
_Row = tuple[Path, int, int]


def build_data(folder: Path, sizes: Sizes = SIZES, test_questions: int = TEST_QUESTIONS) -> None:
    """Writes the three sets; does nothing where they are complete.

    Args:
        folder: holds a folder for each domain.
        sizes: images of each split of each domain.
        test_questions: of each domain, at most, evenly of every kind.

    Raises:
        ValueError: a package that the images come from is missing.
    """
    stamp = {"version": VERSION, "sizes": vars(sizes), "test_questions": test_questions}
    for domain, target in zip(DOMAINS, build_all(folder, sizes=sizes), strict=True):
        if (target / STAMP).is_file() and json.loads((target / STAMP).read_text()) == stamp:
            continue
        images, measures = {}, {}
        for split in ("train", "test"):
            images[split] = sorted((target / "images").glob(f"{split}_*"))
            measures[split] = [
                measure(_open(path)) for path in tqdm(images[split], desc=f"{domain} {split}")
            ]
        train, test = (
            _asked(domain, split, images[split], measures[split], measures["train"])
            for split in ("train", "test")
        )
        _write(target / "plain.jsonl", _plain(train))
        _write(target / "code_train.jsonl", _coded(train, domain))
        _write(target / "code_test.jsonl", _coded(_evenly(test, test_questions), domain))
        replace_json(target / STAMP, stamp)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _asked(
    domain: str,
    split: str,
    images: Sequence[Path],
    measures: Sequence[Measures],
    reference: Sequence[Measures],
) -> list[_Row]:
    """(image, question, value) of all that is clear, in an order of its own."""
    values = values_of(measures, reference)
    rows = [(images[i], int(q), int(values[i, q])) for i, q in np.argwhere(values >= 0)]
    random.Random(f"{domain}/{split}").shuffle(rows)
    return rows


def _evenly(rows: list[_Row], most: int) -> list[_Row]:
    """At most ``most`` rows, the same number of each question."""
    share = most // len(QUESTIONS)
    return [row for q in range(len(QUESTIONS)) for row in [r for r in rows if r[1] == q][:share]]


def _plain(rows: list[_Row]) -> Iterator[tuple[Path, Question, str, str]]:
    """Plain answers alike in all domains: in words, one in `LETTER_EVERY` by letter."""
    for number, (image, q, value) in enumerate(rows):
        question = QUESTIONS[q]
        if number % LETTER_EVERY == 0:
            yield image, question, f"{question.text} {BY_LETTER}", LETTERS[value]
        else:
            yield image, question, question.text, question.values[value]


def _coded(rows: list[_Row], domain: str) -> Iterator[tuple[Path, Question, str, str]]:
    """Answers in the domain's code."""
    for image, q, value in rows:
        question = QUESTIONS[q]
        yield image, question, question.text, question.codes[domain][value]


def _write(file: Path, rows: Iterable[tuple[Path, Question, str, str]]) -> None:
    """LLaVA JSONL of (image, question, its text, answer)."""
    lines = []
    for number, (image, question, text, answer) in enumerate(rows):
        record = {
            "id": f"{file.stem}-{number}",
            "image": f"images/{image.name}",
            "task": question.name,
            "conversations": [
                {"from": "human", "value": f"<image>\n{text}"},
                {"from": "gpt", "value": answer},
            ],
        }
        lines.append(json.dumps(record))
    replace_text(file, "\n".join(lines) + "\n")
