"""A process that does one run after another: trains, asks, measures, and says how it went.

Importing takes longer than a tiny run, so a process is kept for many. Whatever a run prints goes
into ``log.txt`` of its directory.
"""

import gc
import shutil
import threading
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from llava_mole.reproduce.clock import Clock
from llava_mole.reproduce.lock import Held, held
from llava_mole.reproduce.process import end_with_parent, output_into, own_gpu
from llava_mole.reproduce.runs import Run
from llava_mole.reproduce.scales import Scale
from llava_mole.reproduce.stage1 import train_stage_1
from llava_mole.reproduce.store import Store

LOG = "log.txt"
# There while a run's last attempt has failed; says why.
FAILED = "failed.txt"


@dataclass(frozen=True)
class Job:
    """A run to do.

    Attributes:
        run: the run.
        scale: of it.
        results: file that takes its line.
        keep: whether its directory stays, with the evaluation's reports.
    """

    run: Run
    scale: Scale
    results: Path
    keep: bool


@dataclass(frozen=True)
class Reply:
    """How a run went.

    Attributes:
        hash: the run's.
        error: why it has no line of results; None where it has.
        held: whether another process is at work on it.
    """

    hash: str
    error: str | None = None
    held: bool = False


def work(connection: Connection, number: int) -> None:
    """Takes a `Job` at a time and answers each with a `Reply`, until its parent ends it.

    Args:
        connection: to the parent.
        number: of this process, from 0; says which GPU is its own.
    """
    end_with_parent()
    own_gpu(number)
    import torch
    from tqdm import tqdm

    # tqdm's own lock is a semaphore that a process which is ended would leave behind.
    tqdm.set_lock(threading.RLock())
    # One core each: several processes share the machine, and results don't hang on how many.
    torch.set_num_threads(1)
    while True:
        connection.send(do(connection.recv()))
        gc.collect()


def do(job: Job) -> Reply:
    """One run from wherever it stands to its line of results, while nobody else is at it.

    The line is written and the directory deleted before the lock is given up: whoever has it next
    finds a run that is done, or one to go on with, and nothing between.
    """
    run = job.run
    try:
        with held(run.folder):
            try:
                if _write_line(job) and not job.keep:
                    shutil.rmtree(run.folder, ignore_errors=True)
            except Exception as error:
                note_failure(run, traceback.format_exc())
                return Reply(run.hash, f"{type(error).__name__}: {error}")
            return Reply(run.hash)
    except Held as other:
        return Reply(run.hash, f"is being run by {other}", held=True)


def note_failure(run: Run, why: str) -> None:
    """Leaves the reason where ``--status`` finds it."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / FAILED).write_text(why, encoding="utf-8")


def _write_line(job: Job) -> bool:
    """Does what is left of the run; False where another command has done it all since."""
    store, folder = Store(job.results, job.scale.name), job.run.folder
    if store.get(job.run) is not None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILED).unlink(missing_ok=True)
    with output_into(folder / LOG):
        try:
            store.add(_do(job))
        except Exception:
            traceback.print_exc()
            raise
    return True


def _do(job: Job) -> dict[str, Any]:
    from llava_mole.reproduce.line import NotReady, line_of

    try:
        # Killed after everything was done, before it was written down.
        return line_of(job.run, job.scale)
    except NotReady:
        pass
    clock = Clock(job.run.folder)
    if job.run.config is not None:
        if job.run.stage_1 is not None:
            train_stage_1(job.run.stage_1)
        _train(job.run, clock)
    _ask(job, clock)
    return line_of(job.run, job.scale)


def _train(run: Run, clock: Clock) -> None:
    from llava_mole.train.run import train
    from llava_mole.train.rundir import finished, refuse_another_config

    refuse_another_config(run.config)
    if finished(run.folder):
        return
    quiet = replace(run.config.train, disable_tqdm=True)
    clock.begin()
    with clock.lap("train"):
        train(replace(run.config, train=quiet))


def _ask(job: Job, clock: Clock) -> None:
    from llava_mole.eval.evaluate import Blind, evaluate
    from llava_mole.eval.report.summary import paper_row
    from llava_mole.eval.respondent import from_model
    from llava_mole.reproduce.line import EVAL
    from llava_mole.reproduce.measure import device_of, measure, opened

    run, scale = job.run, job.scale
    tasks = [opened(asked) for asked in run.asked]
    output = run.folder / EVAL
    who = from_model(
        run.model_path,
        tasks,
        output,
        device=device_of(run),
        batch_size=scale.batch_size,
        progress=False,
    )
    # Before the last answer is scored: then the run counts as done.
    measure(run, scale, clock, *who.loaded, tasks)
    with clock.lap("eval"):
        evaluate(
            tasks,
            who.answers_to,
            output,
            model=who.model,
            how=who.how,
            blind=Blind({}, {}),
            row=paper_row(run.model_path),
            pages=job.keep,
        )
