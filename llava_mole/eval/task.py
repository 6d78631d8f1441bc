"""One benchmark opened for asking: its questions, checked, and how they are asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_mole import generate
from llava_mole.data.images.read import ImageError, check_exists
from llava_mole.eval.answers import AnswerFolder
from llava_mole.eval.ask import ALONE, Ranks, ask, image_key
from llava_mole.eval.benchmarks import BENCHMARKS, Benchmark, own_set
from llava_mole.eval.prompts import Prompting, prompting
from llava_mole.eval.questions import Question
from llava_mole.eval.scores import Answer


@dataclass(frozen=True)
class Task:
    """A benchmark, or a slice of it.

    Attributes:
        label: names its folder: the benchmark's name, with what sets a slice apart.
        benchmark: what it is.
        questions: in the benchmark's order.
        prompting: how they are asked.
        limit: how many of each part at most; None for all.
    """

    label: str
    benchmark: Benchmark
    questions: Sequence[Question]
    prompting: Prompting
    limit: int | None = None

    def ask(
        self,
        model: Any,
        processor: Any,
        folder: Path,
        settings: dict[str, Any],
        batch_size: int,
        ranks: Ranks = ALONE,
        progress: bool = False,
    ) -> list[Answer]:
        """The model's answers, kept in ``folder / label``; see `llava_mole.eval.ask.ask`."""

        def answer_batch(prompts):
            return generate.answers(
                model,
                processor,
                prompts,
                max_new_tokens=self.prompting.max_new_tokens,
                repetition_penalty=self.prompting.repetition_penalty,
            )

        return ask(
            [self.prompting.apply(question) for question in self.questions],
            answer_batch,
            folder / self.label,
            self._settings(settings),
            batch_size,
            ranks,
            self.label if progress else None,
        )

    def settle(self, folder: Path, settings: dict[str, Any]) -> None:
        """Looks, before a model is loaded, whether `ask` would refuse the folder.

        Raises:
            ValueError: it holds answers given under other settings.
            OSError: it can't be written.
        """
        AnswerFolder(folder / self.label, self.questions).hold_to(self._settings(settings))

    def _settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, **self.prompting.settings()}


def open_task(
    name: str,
    path: Path,
    *,
    metric: str | None = None,
    image_root: str | None = None,
    limit: int | None = None,
    style: str = "llava",
    suffix: str = "",
    max_new_tokens: int | None = None,
) -> Task:
    """A benchmark by name, or a question set of one's own.

    Args:
        name: of a benchmark, or any other for an own set.
        path: folder that holds the benchmark, or the own set's file.
        metric: of an own set; default ``exact_match``.
        image_root: folder of an own set's images; default its own.
        limit: only the first so many questions of each part.
        style: see `prompting`.
        suffix: see `prompting`.
        max_new_tokens: see `prompting`.

    Raises:
        ValueError: no such metric or benchmark, or files that are not as they must be.
    """
    benchmark = BENCHMARKS.get(name)
    if benchmark is None:
        benchmark = own_set(name, metric or "exact_match", image_root)
    questions = benchmark.load(path, limit)
    label = name if limit is None else f"{name}.first{limit}"
    how = prompting(benchmark, style, suffix, max_new_tokens)
    return Task(label, benchmark, questions, how, limit)


def missing_images(questions: Sequence[Question]) -> list[tuple[Question, str]]:
    """The first question of each image whose file can't be opened, and why; nothing is decoded."""
    looked, missing = set(), []
    for question in questions:
        key = image_key(question)
        if key is None or key in looked:
            continue
        looked.add(key)
        try:
            check_exists(question.image, question.image_root)
        except ImageError as error:
            missing.append((question, str(error)))
    return missing


def refuse_missing_images(task: Task) -> None:
    """Raises ValueError where images are missing: names how many, the first, and the remedy."""
    if missing := missing_images(task.questions):
        question, reason = missing[0]
        images = len({image_key(q) for q in task.questions if q.image is not None})
        raise ValueError(
            f"{task.benchmark.name}: {len(missing)} of {images} images can't be opened, the first "
            f"for {question.place}: {reason} (looked in {question.image_root}). Fetch them, or "
            "score such questions 0 with --on-bad-image count"
        )
