"""Benchmarks during training: asked and scored as by ``llava-mole eval``, every N steps."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava_mole.data.config import EvalConfig
from llava_mole.eval import results, scoring
from llava_mole.eval.ranks import current_ranks
from llava_mole.eval.scores import Line, Scored
from llava_mole.eval.task import Task, open_task, refuse_missing_images


class Validation:
    """Called by the trainer on every rank with (model, processor, step); returns what to log.

    Answers and ``results.json`` of each step stay in ``folder / step-N``. A step that is asked
    again, as after a resume, is asked afresh.

    Args:
        tasks: what is asked.
        folder: of all steps.
        batch_size: questions that are answered at once.
    """

    def __init__(self, tasks: Sequence[Task], folder: Path, batch_size: int) -> None:
        self.tasks = tasks
        self.folder = folder
        self.batch_size = batch_size

    def __call__(self, model: Any, processor: Any, step: int) -> dict[str, float]:
        """``NAME/LINE`` in per cent for each line of each benchmark's result table; rank 0's."""
        ranks = current_ranks()
        folder = self.folder / f"step-{step}"
        if ranks.rank == 0 and folder.exists():
            shutil.rmtree(folder)
        ranks.wait()
        metrics: dict[str, float] = {}
        entries = {}
        for task in self.tasks:
            answers = task.ask(model, processor, folder, {"step": step}, self.batch_size, ranks)
            if ranks.rank:
                continue
            scored = scoring.score(task.benchmark, task.questions, answers)
            lines = scoring.lines(task.benchmark, scored)
            metrics |= logged(task, scored, lines)
            settings = task.prompting.settings()
            entries[task.label] = results.entry(task, scored, lines, settings, {})
        if ranks.rank == 0:
            results.update(folder, {"step": step}, entries, None)
        return metrics


def logged(task: Task, scored: Sequence[Scored], lines: Sequence[Line]) -> dict[str, float]:
    """The lines' scores in per cent by metric name, and how many questions were not asked."""
    name = task.benchmark.name
    metrics = {}
    for line in lines:
        # Trackers nest by slashes; a kind of question such as yes/no is one thing.
        key = line.name.replace("/", "-")
        if line.kind == "dataset" and line.part != name:
            key = f"{line.part}/{key}"
        metrics[f"{name}/{'score' if key == name else key}"] = line.score.value
    if failed := sum(s.answer.prediction is None for s in scored):
        metrics[f"{name}/not_asked"] = float(failed)
    return metrics


def open_validation(config: EvalConfig, run_dir: str | Path) -> Validation | None:
    """The benchmarks of a run's ``data.eval``, opened and checked; None where there are none.

    Raises:
        ValueError: a benchmark that can't be read, or whose images are missing.
    """
    if not config.benchmarks:
        return None
    tasks = []
    for item in config.benchmarks:
        if not Path(item.path).exists():
            raise ValueError(f"data.eval.benchmarks, {item.name}: {item.path} is not there")
        task = open_task(
            item.name,
            Path(item.path),
            metric=item.metric,
            image_root=item.image_root,
            limit=item.limit,
            max_new_tokens=item.max_new_tokens,
        )
        refuse_missing_images(task)
        tasks.append(task)
    return Validation(tasks, Path(run_dir) / "validation", config.batch_size)
