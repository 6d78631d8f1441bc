"""What a run measured about itself, on the disk, so that a stopped run keeps it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llava_mole.files import replace_json

# Of a run directory.
MEASURED = "measured.json"


class Clock:
    """Seconds and other figures of the run in ``folder``.

    Attributes:
        values: what was measured so far.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / MEASURED
        self.values: dict[str, Any] = {"seconds": {}}
        if self._file.is_file():
            self.values = json.loads(self._file.read_text(encoding="utf-8"))

    def begin(self) -> None:
        """Counts the attempts that training takes: with several, its seconds are the last one's."""
        self.values["seconds"]["attempts"] = self.values["seconds"].get("attempts", 0) + 1
        self._write()

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Times a part; one that is killed is not counted."""
        started = time.perf_counter()
        yield
        seconds = self.values["seconds"]
        seconds[name] = round(seconds.get(name, 0) + time.perf_counter() - started, 2)
        self._write()

    def note(self, name: str, value: Any) -> None:
        """Keeps a figure."""
        self.values[name] = value
        self._write()

    def _write(self) -> None:
        replace_json(self._file, self.values)
