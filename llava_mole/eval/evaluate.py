"""From opened benchmarks to results and reports: ask, score, put beside what sees no image."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_mole.data.prepared.recordset import RecordSet
from llava_mole.eval import results
from llava_mole.eval.baselines import majority_answers
from llava_mole.eval.paper import PaperRow
from llava_mole.eval.questions import Question
from llava_mole.eval.report.summary import write_benchmark, write_summary
from llava_mole.eval.scores import Answer, Estimate
from llava_mole.eval.scoring import lines, score
from llava_mole.eval.task import Task


@dataclasses.dataclass(frozen=True)
class Blind:
    """What is scored without seeing the image.

    Attributes:
        training: benchmark's name to what was trained on, for the majority answer.
        shuffled: task's label to its questions beside other images.
    """

    training: Mapping[str, RecordSet]
    shuffled: Mapping[str, Sequence[Question]]


def evaluate(
    tasks: Sequence[Task],
    answers_to: Callable[[Task], Sequence[Answer]],
    output: Path,
    *,
    model: Mapping[str, Any],
    how: Mapping[str, Any],
    blind: Blind,
    row: PaperRow | None = None,
    rank: int = 0,
    pages: bool = True,
) -> str:
    """Answers, scores, ``results.json`` and reports of every task in turn.

    Args:
        tasks: what is asked.
        answers_to: asks a model, or reads a file; every rank calls it.
        output: folder of the evaluation.
        model: who answers, as ``results.json`` names it; empty for predictions.
        how: how it is asked, besides each task's own prompting.
        blind: baselines.
        row: the paper's row that the model's config is.
        rank: only rank 0 scores and writes.
        pages: whether to write a page with every example, and the reports.

    Returns:
        What the terminal shows; "" on other ranks, and without ``pages``.
    """
    entries: dict[str, Any] = {}
    shown = ""
    for task in tasks:
        answers = answers_to(task)
        unseen = None
        if task.label in blind.shuffled:
            unseen = answers_to(
                dataclasses.replace(
                    task, label=f"{task.label}.shuffled", questions=blind.shuffled[task.label]
                )
            )
        if rank:
            continue
        scored = score(task.benchmark, task.questions, answers)
        baselines = {}
        if task.benchmark.name in blind.training:
            records = blind.training[task.benchmark.name].records()
            baselines["majority_answer"] = _overall(task, majority_answers(task.questions, records))
        if unseen is not None:
            baselines["shuffled_images"] = _overall(task, unseen)
        settings = {**task.prompting.settings(), **how} if how else {}
        table = lines(task.benchmark, scored)
        entries[task.label] = results.entry(task, scored, table, settings, baselines)
        if pages:
            write_benchmark(output, task.label, entries[task.label], scored, row, model)
        # At once: what comes after may be stopped.
        values = results.update(output, model, entries, row)
        if pages:
            shown = write_summary(output, values, list(entries))
    return shown


def _overall(task: Task, answers: Sequence[Answer]) -> Estimate:
    """Score over all questions, as the benchmark's first line has it."""
    return lines(task.benchmark, score(task.benchmark, task.questions, answers))[0].score
