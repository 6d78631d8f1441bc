"""The quickstart's *general* set: easy-VQA's coloured shapes, from the wheel ``easy-vqa`` (MIT).

Images and questions are easy-VQA's own. Questions are drawn so that words alone say little: yes
and no come equally often for every wording, the shape and colour answers likewise. Its train images
feed ``pretrain`` and ``train``, its test images ``test``.
"""

import collections
import itertools
import random
import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava_mole.data.builders.store import Question, Sizes, build_once, caption, conversation

VERSION = 1
SOURCE = "easy-vqa"
TASKS = ("shape", "color", "yes/no")


def build(
    output_dir: str | Path, seed: int, sizes: Sizes, progress_position: int | None = None
) -> None:
    """Writes the set to ``output_dir``; does nothing if it is there already.

    Raises:
        ValueError: the package ``easy-vqa`` is missing, or ``sizes`` asks for more images than it
            has (4,000 for ``train``, 1,000 for ``test``).
    """
    settings = {"set": "general", "version": VERSION, "seed": seed, "sizes": vars(sizes)}
    build_once(output_dir, settings, lambda at: _produce(at, seed, sizes, progress_position))


def _produce(at: Path, seed: int, sizes: Sizes, position: int | None) -> dict[str, list[dict]]:
    train_images, train = _read("train")
    test_images, test = _read("test")
    # Only images with a question of every task: easy-VQA asks some images yes/no alone.
    train, test = (
        {id: asked for id, asked in split.items() if {q.task for q in asked} == set(TASKS)}
        for split in (train, test)
    )
    if sizes.train > len(train) or sizes.test > len(test):
        raise ValueError(
            f"easy-VQA has {len(train)} train and {len(test)} test images with every task; "
            f"train asks for {sizes.train}, test for {sizes.test}."
        )
    rng = random.Random(seed)
    chosen = {
        "train": rng.sample(sorted(train), sizes.train),
        "test": rng.sample(sorted(test), sizes.test),
    }
    used: collections.Counter = collections.Counter()
    splits: dict[str, list[dict[str, Any]]] = {"pretrain": [], "train": [], "test": []}
    for split, ids in chosen.items():
        images, questions = (test_images, test) if split == "test" else (train_images, train)
        for number, id in enumerate(tqdm(ids, desc=f"general {split}", position=position)):
            image = f"images/{'test' if split == 'test' else 'train'}_{id:05d}.png"
            shutil.copyfile(images[id], at / image)
            name = f"general-{split}-{id}"
            if split == "train" and number < sizes.pretrain:
                text = _caption(questions[id])
                splits["pretrain"].append(caption(f"{name}-caption", image, SOURCE, text))
            tasks = [TASKS[number % 3]] if split == "test" else rng.sample(TASKS, 3)
            asked = [_draw(questions[id], task, used, split, rng) for task in tasks]
            splits[split].append(conversation(name, image, SOURCE, _without_hints(asked)))
    return splits


def _read(split: str) -> tuple[dict[int, str], dict[int, list[Question]]]:
    """Image files and all questions of easy-VQA's own ``split``, by image number."""
    try:
        import easy_vqa
    except ImportError as error:
        raise ValueError("the general set needs easy-vqa: pip install easy-vqa") from error
    images = getattr(easy_vqa, f"get_{split}_image_paths")()
    texts, answers, ids = getattr(easy_vqa, f"get_{split}_questions")()
    questions: dict[int, list[Question]] = collections.defaultdict(list)
    for text, answer, id in zip(texts, answers, ids, strict=True):
        questions[id].append(Question(_task(text, answer), text, answer))
    return images, questions


def _task(text: str, answer: str) -> str:
    if answer in ("yes", "no"):
        return "yes/no"
    return "color" if "color" in text else "shape"


def _draw(
    questions: list[Question],
    task: str,
    used: collections.Counter,
    split: str,
    rng: random.Random,
) -> Question:
    """A question of ``task``, preferring what was asked least in ``split``.

    For yes/no the answer is drawn first, then among its questions the one whose wording has had
    this answer least against the other one: that keeps each wording balanced.
    """
    candidates = [question for question in questions if question.task == task]
    if task == "yes/no":
        answer = rng.choice(("yes", "no"))
        candidates = [q for q in candidates if q.answer == answer] or candidates

    def lead(question: Question) -> tuple[int, float]:
        other = {"yes": "no", "no": "yes"}.get(question.answer)
        mine = used[split, question.text, question.answer]
        theirs = used[split, question.text, other] if other else 0
        return mine - theirs, rng.random()

    chosen = min(candidates, key=lead)
    used[split, chosen.text, chosen.answer] += 1
    return chosen


def _without_hints(asked: list[Question]) -> list[Question]:
    """The longest order of questions in which no turn tells the answer of a later one."""
    best: list[Question] = []
    for order in itertools.permutations(asked):
        kept: list[Question] = []
        for question in order:
            if not any(_hints(earlier, question) for earlier in kept):
                kept.append(question)
        if len(kept) > len(best):
            best = kept
    return best


def _hints(earlier: Question, later: Question) -> bool:
    """Whether one can answer ``later`` from ``earlier`` without the image."""
    if later.answer in ("yes", "no"):
        return earlier.answer in later.text.rstrip("?").split()
    return later.answer in earlier.text.rstrip("?").split()


def _caption(questions: list[Question]) -> str:
    """``a blue rectangle``, as far as the image's own questions say it."""
    shape = color = None
    for question in questions:
        words = question.text.rstrip("?").split()
        if question.task == "shape":
            shape = question.answer
            if words[-1] == "shape" and words[-2] not in ("the", "what"):
                color = words[-2]
        elif question.task == "color":
            color = question.answer
            shape = words[-1] if words[-1] != "shape" else shape
    return f"a {color} {shape or 'shape'}" if color else f"a {shape or 'shape'}"
