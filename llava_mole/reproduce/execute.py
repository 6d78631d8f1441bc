"""Runs on this machine: side by side, each once, going on where an earlier command stopped."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from tqdm import tqdm

from llava_mole.reproduce.runs import Run
from llava_mole.reproduce.scales import Scale
from llava_mole.reproduce.store import Store
from llava_mole.reproduce.worker import LOG, Job, Reply, note_failure, work

# Libraries keep some 50 MB of every run, which adds up over a study of hundreds; a new process
# takes seconds.
RUNS_A_PROCESS = 20


@dataclass
class Outcome:
    """How it went, by run.

    Attributes:
        done: those that have results now.
        failed: run and reason.
        elsewhere: run and who is at work on it.
    """

    done: list[Run] = field(default_factory=list)
    failed: list[tuple[Run, str]] = field(default_factory=list)
    elsewhere: list[tuple[Run, str]] = field(default_factory=list)


def execute(
    runs: Sequence[Run],
    scale: Scale,
    store: Store,
    processes: int,
    keep_runs: bool,
    progress: bool = True,
) -> Outcome:
    """Does every run that has no results yet.

    Args:
        runs: in the order in which they are begun.
        scale: of them.
        store: of the file that takes each run's line as soon as it is there.
        processes: runs side by side.
        keep_runs: whether run directories stay, with the pages of every answer.
        progress: whether to show a bar.

    Raises:
        ValueError: results that contradict the runs, see `Store`.
    """
    outcome = Outcome()
    waiting = deque()
    for run in runs:
        if store.get(run) is None:
            waiting.append(Job(run, scale, store.path, keep_runs))
        else:
            outcome.done.append(run)
    if not waiting:
        return outcome
    by_hash = {run.hash: run for run in runs}
    bar = tqdm(total=len(runs), initial=len(outcome.done), unit="run", disable=not progress)
    count = min(processes, len(waiting))
    with bar, _threads(1), _Workers(count) as workers:
        for reply in workers.do(waiting):
            run = by_hash[reply.hash]
            if reply.error is None:
                outcome.done.append(run)
            elif reply.held:
                outcome.elsewhere.append((run, reply.error))
                bar.write(f"{run.name} {reply.error}")
            else:
                outcome.failed.append((run, reply.error))
                bar.write(f"{run.name} failed: {reply.error} (log: {run.folder / LOG})")
            bar.set_postfix(failed=len(outcome.failed))
            bar.update()
    store.reread()
    return outcome


class _Workers:
    """Processes that do jobs; one that dies fails its job alone and gives way to a new one."""

    def __init__(self, count: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._given = [0] * count
        self._all = [self._start(number) for number in range(count)]

    def do(self, jobs: deque[Job]) -> Iterator[Reply]:
        """The jobs' replies, as they come."""
        busy: dict[int, Job] = {}
        for number in range(len(self._all)):
            self._give(number, jobs, busy)
        while busy:
            connections = {self._all[number][1]: number for number in busy}
            for connection in wait(list(connections)):
                number = connections[connection]
                job = busy.pop(number)
                try:
                    reply = connection.recv()
                # The latter where it ended before it read its job.
                except (EOFError, ConnectionError):
                    reply = Reply(job.run.hash, self._ended(number))
                    note_failure(job.run, reply.error)
                self._give(number, jobs, busy)
                yield reply

    def _give(self, number: int, jobs: deque[Job], busy: dict[int, Job]) -> None:
        if not jobs:
            return
        if self._given[number] == RUNS_A_PROCESS:
            self._all[number][0].terminate()
            self._ended(number)
        self._given[number] += 1
        busy[number] = jobs.popleft()
        # One that has ended is found out when its reply is read.
        with suppress(ConnectionError):
            self._all[number][1].send(busy[number])

    def _ended(self, number: int) -> str:
        """Puts a new process in the place of one that ends; says how it did."""
        process, connection = self._all[number]
        process.join()
        connection.close()
        self._all[number] = self._start(number)
        return f"its process ended with status {process.exitcode}"

    def _start(self, number: int):
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, number))
        process.start()
        theirs.close()
        self._given[number] = 0
        return process, ours

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_) -> None:
        # Idle, or interrupted: a run that is stopped goes on from its checkpoint another time.
        for process, _connection in self._all:
            process.terminate()
        for process, _connection in self._all:
            process.join()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Threads of the libraries that processes started meanwhile will load."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in (*names, "TOKENIZERS_PARALLELISM")}
    os.environ.update({name: str(count) for name in names}, TOKENIZERS_PARALLELISM="false")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
