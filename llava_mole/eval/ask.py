"""Asks a model every question of a benchmark, in batches, on as many ranks as there are."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from llava_mole.data.images.read import ImageError
from llava_mole.eval.answers import AnswerFolder
from llava_mole.eval.questions import Question
from llava_mole.eval.scores import Answer

AnswerBatch = Callable[[list[tuple[Image.Image | None, Sequence[dict[str, str]]]]], list[str]]
# Batches whose images are read ahead.
AHEAD = 2


@dataclass(frozen=True)
class Ranks:
    """Who shares the work.

    Attributes:
        rank: this process.
        count: all processes.
        wait: returns when all have called it.
    """

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None


ALONE = Ranks()


def ask(
    questions: Sequence[Question],
    answer_batch: AnswerBatch,
    folder: Path,
    settings: dict[str, Any],
    batch_size: int = 16,
    ranks: Ranks = ALONE,
    progress: str | None = None,
) -> list[Answer]:
    """Every question's answer, in order, keeping what ``folder`` already holds.

    A batch is the same whatever was answered before and by however many ranks: one that a stop cut
    in two is asked whole again and only its missing answers are kept, so answers that depend on
    their batch in the last bits (bfloat16) do not depend on where a run was stopped.

    Args:
        questions: with distinct ids.
        answer_batch: takes ``(image or None, prompt turns)`` pairs, returns their answers.
        folder: see `AnswerFolder`.
        settings: what the answers depend on besides the questions, as JSON values.
        batch_size: questions a call of ``answer_batch``.
        ranks: who shares the work; all of them must call.
        progress: label of the progress bar on rank 0, none if ``None``.

    Raises:
        ValueError: ``folder`` holds answers to other questions or of other settings, or no
            question could be asked.
    """
    answers = AnswerFolder(folder, questions)
    plan = batches(questions, batch_size)
    if ranks.rank:
        # Rank 0 has the lock, and has settled what is there.
        ranks.wait()
        _ask_missing(answers, plan, answer_batch, ranks, None)
        ranks.wait()
    else:
        with answers.locked():
            answers.hold_to(settings)
            answers.repair()
            ranks.wait()
            _ask_missing(answers, plan, answer_batch, ranks, progress)
            answers.finish()
            ranks.wait()
    known = answers.known()
    found = [known[question.id] for question in questions]
    if all(answer.error for answer in found):
        raise ValueError(
            f"{folder}: not one of {len(found)} questions could be asked; of the first: "
            f"{found[0].error}"
        )
    return found


def _ask_missing(
    answers: AnswerFolder,
    plan: Sequence[Sequence[int]],
    answer_batch: AnswerBatch,
    ranks: Ranks,
    progress: str | None,
) -> None:
    questions = answers.questions
    known = {id for id, answer in answers.known().items() if not answer.error}
    # All have read what is known before anyone adds to it.
    ranks.wait()
    todo = [batch for batch in plan if any(questions[i].id not in known for i in batch)]
    own = [[questions[i] for i in batch] for batch in todo[ranks.rank :: ranks.count]]
    left = sum(question.id not in known for batch in own for question in batch)
    if own:
        bar = tqdm(total=left, desc=progress, unit="answer", disable=progress is None)
        with answers.journal(ranks.rank) as journal, bar:
            for batch, images in with_images(own):
                new = [
                    (question, answer)
                    for question, answer in answered(batch, images, answer_batch)
                    if question.id not in known
                ]
                journal.append(new)
                bar.update(len(new))
    ranks.wait()


def batches(questions: Sequence[Question], size: int) -> list[list[int]]:
    """Positions in batches of ``size``: questions about one image together, long ones first.

    Questions about one image share its prefill, those of similar length waste little on padding,
    and the largest batch, if it does not fit the memory, shows it at once.
    """
    groups: dict[Any, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(image_key(question) or index, []).append(index)

    def length(index: int) -> int:
        return sum(len(turn["content"]) for turn in questions[index].turns)

    ordered = sorted(groups.values(), key=lambda group: -max(map(length, group)))
    flat = [i for group in ordered for i in sorted(group, key=lambda i: (-length(i), i))]
    return [flat[start : start + size] for start in range(0, len(flat), size)]


def image_key(question: Question) -> tuple | None:
    """Equal for questions about the same image; None for text alone."""
    return None if question.image is None else (question.image_root, question.image)


Images = dict[Any, Image.Image | ImageError]


def with_images(plan: Sequence[list[Question]]) -> Iterator[tuple[list[Question], Images]]:
    """Each batch with its distinct images, the next ones' read meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(_images, batch) for batch in plan[:AHEAD]]
        try:
            for index, batch in enumerate(plan):
                images = pending.pop(0).result()
                if index + AHEAD < len(plan):
                    pending.append(pool.submit(_images, plan[index + AHEAD]))
                yield batch, images
        finally:
            for future in pending:
                future.cancel()


def _images(batch: Sequence[Question]) -> Images:
    found: Images = {}
    for question in batch:
        key = image_key(question)
        if key is not None and key not in found:
            try:
                found[key] = question.load_image()
            except ImageError as error:
                found[key] = error
    return found


def answered(
    batch: Sequence[Question], images: Images, answer_batch: AnswerBatch
) -> list[tuple[Question, Answer]]:
    """The batch's answers; one whose image can't be read, or that is too long, says so instead."""
    prompts, asked, failed, said = [], [], {}, {}
    for question in batch:
        image = images.get(image_key(question))
        if isinstance(image, ImageError):
            failed[question.id] = str(image)
        else:
            asked.append(question)
            prompts.append((image, question.turns))
    try:
        predictions = answer_batch(prompts) if asked else []
        said = dict(zip((question.id for question in asked), predictions, strict=True))
    except ValueError:  # a prompt that does not fit: which one?
        for question, prompt in zip(asked, prompts, strict=True):
            try:
                (said[question.id],) = answer_batch([prompt])
            except ValueError as error:
                failed[question.id] = f"{question.place}: {error}"
    return [
        (question, Answer(question.id, said.get(question.id), failed.get(question.id, "")))
        for question in batch
    ]
