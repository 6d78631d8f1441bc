"""One function over many tasks in several processes, the results in order."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def mapped(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    processes: int,
    parts: Iterable[object] = (),
) -> contextlib.closing[Iterator[Result]]:
    """What ``function`` gives for each of ``tasks``, in order; to be used with ``with``.

    Args:
        function: travels to each process once; tasks and results travel one by one.
        tasks: taken only a few ahead of the work.
        processes: worker processes; with 0 or 1, or a single task, the work is done here.
        parts: objects within ``function`` whose modules take time and memory to import.

    Raises:
        ValueError: a process was killed.
    """
    tasks = iter(tasks)
    first = list(itertools.islice(tasks, 2))
    tasks = itertools.chain(first, tasks)
    if processes <= 1 or len(first) < 2:
        return contextlib.closing(function(task) for task in tasks)
    return contextlib.closing(_spread(function, tasks, processes, parts))


def _spread(function, tasks, processes: int, parts) -> Iterator:
    # Never forked from this process, where torch, tokenizers and HTTP clients have threads by now.
    server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if server else "spawn")
    if server:
        # Imported once, in the server that workers are forked from: they share that memory.
        context.set_forkserver_preload(
            [__name__, *(type(part).__module__ for part in (function, *parts))]
        )
    pool = ProcessPoolExecutor(processes, context, _start, (function,))
    ahead: deque[Any] = deque()
    try:
        for task in tasks:
            ahead.append(pool.submit(_work, task))
            while len(ahead) > 2 * processes:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool:
        raise ValueError(
            f"one of {processes} worker processes was killed, perhaps for lack of memory; give the "
            "command again with fewer"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_function: Callable[[Any], Any] | None = None


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    # Each process is one thread's worth of work.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # The parent stops its workers; on Ctrl-C they would only print a traceback each.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Without this, workers of a parent that was killed would wait for work for ever.
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _work(task: Any) -> Any:
    return _function(task)
