"""A function in a fresh process, and what memory and CPU it and its own processes took.

Memory is the sum of PSS (proportional set size): pages that several processes share count once, so
the sum is what the tree takes from the machine. Pages of files that are mapped count too, though
the kernel can drop them at any time; what is left without them is reported beside it.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_EVERY = 0.2


@dataclass(frozen=True)
class Peak:
    """Peak memory of a tree of processes in bytes, and their CPU time.

    Attributes:
        total: largest sum of PSS (of RSS where the kernel gives no PSS).
        anonymous: largest sum without pages of mapped files; None where it is not known.
        kind: ``PSS`` or ``RSS``.
        cpu: CPU seconds of all processes, as last seen of each.
    """

    total: int
    anonymous: int | None
    kind: str
    cpu: float


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Peak]:
    """``function(*arguments)`` in a new interpreter, and its tree's peak memory.

    Raises:
        RuntimeError: it raised or died; the message has its traceback.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments))
    process.start()
    sender.close()
    watch = _Watch(process.pid)
    try:
        done, value = receiver.recv()
    except EOFError:
        process.join()
        done, value = False, f"the process died with exit code {process.exitcode}"
    finally:
        peak = watch.stop()
        if process.is_alive():
            process.join(timeout=30)
    if not done:
        raise RuntimeError(f"{function.__name__}: {value}")
    return value, peak


def _call(sender: Connection, function: Callable[..., Any], arguments: tuple) -> None:
    import traceback

    try:
        sender.send((True, function(*arguments)))
    except BaseException:
        sender.send((False, traceback.format_exc()))
        raise


class _Watch:
    """Samples a tree's memory from a thread until it is stopped."""

    def __init__(self, root: int) -> None:
        self._root, self._stopped = root, threading.Event()
        self._total, self._anonymous, self._kind = 0, None, "PSS"
        # By process: workers of a fork server are nobody's waited-for children, so the kernel's
        # sum over children leaves them out.
        self._cpu: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> Peak:
        self._stopped.set()
        self._thread.join()
        return Peak(self._total, self._anonymous, self._kind, sum(self._cpu.values()))

    def _run(self) -> None:
        while not self._stopped.is_set():
            tree = _tree(self._root)
            self._cpu |= tree
            total, anonymous, kind = tree_memory(tree)
            if total > self._total:
                self._total, self._kind = total, kind
            if anonymous is not None:
                self._anonymous = max(self._anonymous or 0, anonymous)
            # Reading the maps of large processes takes a while itself.
            time.sleep(_EVERY)


def tree_memory(tree: Iterable[int]) -> tuple[int, int | None, str]:
    """Bytes of processes now: all, without pages of files, and which measure."""
    total, anonymous, kind = 0, 0, "PSS"
    for pid in tree:
        # A process may end while it is looked at.
        try:
            fields = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
            total += fields["Pss"]
            shared = fields.get("Pss_Shmem")
            own = fields.get("Pss_Anon")
            anonymous = None if None in (anonymous, own, shared) else anonymous + own + shared
        except FileNotFoundError:
            if Path(f"/proc/{pid}/statm").exists():
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                total += pages * os.sysconf("SC_PAGE_SIZE")
                anonymous, kind = None, "RSS"
        except (ProcessLookupError, PermissionError, KeyError):
            continue
    return total, anonymous, kind


def _fields(text: str) -> dict[str, int]:
    """Sizes of a smaps_rollup in bytes, by name."""
    lines = [line.split() for line in text.splitlines()[1:]]
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}


def _tree(root: int) -> dict[int, float]:
    """``root`` and all its descendants, with the CPU seconds of each."""
    children: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            # The name in parentheses may hold anything, spaces included.
            fields = stat.rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry))
            seconds[int(entry)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    tree, new = {}, [root]
    while new:
        tree |= {pid: seconds[pid] for pid in new if pid in seconds}
        new = [child for parent in new for child in children.get(parent, [])]
    return tree
