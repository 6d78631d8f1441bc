"""What a run's line says beside its scores: where its routers send tokens, what a step saves."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from llava_mole.model.identity import weights_of
from llava_mole.reproduce.clock import Clock
from llava_mole.reproduce.runs import Run
from llava_mole.reproduce.scales import Asked, Scale
from llava_mole.train.rundir import finished

_WEIGHTS = "measured_weights"


def measure_launched(runs: Sequence[Run], scale: Scale) -> list[Run]:
    """Measures runs that were trained by scripts, on one device; what is measured stays.

    Args:
        runs: those of them that are a checkpoint's have nothing to measure.
        scale: says how many questions are routed.

    Returns:
        Those that were measured now.

    Raises:
        ValueError: a run that is not trained to the end, or whose base model is not there.
    """
    from llava_mole.model import load_run

    trained = [run for run in runs if run.config is not None]
    if unfinished := [str(run.folder) for run in trained if not finished(run.folder)]:
        raise ValueError(f"{', '.join(unfinished)}: not trained to the end; train first")
    found = []
    for run in trained:
        clock, weights = Clock(run.folder), weights_of(run.folder)
        if clock.values.get(_WEIGHTS) == weights:
            continue
        tasks = [opened(asked) for asked in run.asked]
        model, processor = load_run(str(run.folder), device=device_of(run))
        measure(run, scale, clock, model, processor, tasks)
        # Last: a measurement that is cut short is made again.
        clock.note(_WEIGHTS, weights)
        found.append(run)
    return found


def measure(
    run: Run, scale: Scale, clock: Clock, model: Any, processor: Any, tasks: Sequence[Any]
) -> None:
    """Notes ``routing`` and ``saved_bytes`` of one run.

    Args:
        run: of which.
        scale: says how many questions are routed, and how many at once.
        clock: takes the figures.
        model: the run's, loaded.
        processor: its processor.
        tasks: what it is asked, see `opened`.
    """
    from llava_mole.reproduce.routed import routing_of_tasks
    from llava_mole.reproduce.saved import saved_bytes

    clock.note("routing", routing_of_tasks(model, processor, tasks, scale.routed, scale.batch_size))
    if run.config is not None:
        clock.note("saved_bytes", saved_bytes(run.config, device_of(run)))


_TASKS: dict[tuple, Any] = {}


def opened(asked: Asked) -> Any:
    """A benchmark as a task, kept for the next run.

    Raises:
        ValueError: a benchmark or image that is not there.
    """
    from llava_mole.eval.task import open_task, refuse_missing_images

    key = astuple(asked)
    if key not in _TASKS:
        task = open_task(
            asked.name,
            Path(asked.path),
            limit=asked.limit,
            style=asked.style,
            suffix=asked.suffix,
            max_new_tokens=asked.max_new_tokens,
        )
        refuse_missing_images(task)
        _TASKS[key] = task
    return _TASKS[key]


def device_of(run: Run) -> str:
    """Where a run is asked and measured."""
    import torch

    on_cpu = run.config is not None and run.config.train.use_cpu
    return "cuda" if torch.cuda.is_available() and not on_cpu else "cpu"
