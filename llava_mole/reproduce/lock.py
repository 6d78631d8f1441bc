"""A lock on a run: two processes never train it at once."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A process that was just killed may be a moment in dying.
PATIENCE = 5.0


class Held(Exception):
    """Another process holds the lock; says which."""


@contextmanager
def held(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the lock of the run in ``folder``; the file beside it names process and machine.

    The system frees it when its holder ends, however that may be, so none is ever stale.

    Args:
        folder: run directory; need not be there yet.
        patience: seconds to wait for another holder.

    Raises:
        Held: another process has it.
    """
    path = lock_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        _take(file, path, patience)
        file.truncate(0)
        json.dump({"pid": os.getpid(), "host": platform.node()}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder(folder: Path) -> str | None:
    """Who is at work on the run in ``folder``, in words; None if nobody is."""
    path = lock_file(folder)
    if not path.is_file():
        return None
    with open(path, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return _name(path)
    return None


def lock_file(folder: Path) -> Path:
    """Beside the run directory, which may be deleted while the lock is held."""
    return folder.parent / ".locks" / f"{folder.name}.lock"


def _take(file, path: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise Held(_name(path)) from None
            time.sleep(0.1)


def _name(path: Path) -> str:
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
