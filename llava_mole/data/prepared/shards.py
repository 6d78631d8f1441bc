"""The part of a preparation that worker processes do: one piece of a source into one Arrow shard.

A finished piece is three files: the shard, its problems, and a small JSON, written last, that says
so. A process that dies leaves pieces that are finished and pieces that are not, nothing between.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from llava_mole.data.prepared.columns import SCHEMA, batches, to_batch
from llava_mole.data.prepared.folder import write_json
from llava_mole.data.records import BadRecord, Problem, Record
from llava_mole.data.sources.source import Piece, Source

# A piece's number and the piece; None stands for a source without any.
Task = tuple[int, Piece | None]


@dataclasses.dataclass(frozen=True)
class ShardWriter:
    """Writes pieces of ``source`` below ``folder``.

    Attributes:
        source: gives the records.
        folder: where shards are written.
        encoder: an `Encoder` that counts lengths, or None.
    """

    source: Source
    folder: Path
    encoder: Any = None

    def _finished(self, task: Task) -> dict[str, Any] | None:
        """What is known about a piece that was written before, else None."""
        number, piece = task
        try:
            report = json.loads((self.folder / f"{number:05d}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(report, dict) or report.get("piece") != _as_json(piece):
            return None
        # A preparation that was stopped at its very end may have moved the shard to its final name.
        moved = self.folder.parent.glob(f"data-{number:05d}-of-*.arrow")
        for path in (self.folder / f"{number:05d}.arrow", *moved):
            if path.is_file() and path.stat().st_size == report["size"]:
                return report
        return None

    def __call__(self, task: Task) -> tuple[Task, dict[str, Any]]:
        """Writes one piece, unless it was written before.

        Returns:
            The task and the piece's report.

        Raises:
            ValueError: the source's file is broken as a whole.
        """
        return task, self._finished(task) or self._written(task)

    def _written(self, task: Task) -> dict[str, Any]:
        number, piece = task
        shard, problems = (self.folder / f"{number:05d}.{end}" for end in ("arrow", "jsonl"))
        rows = paths = 0
        with _Hashed(shard) as file, _Hashed(problems) as listed:
            bad = _Problems(self.source.name, listed)
            items = self.source.read(piece) if piece else ()
            with pa.ipc.new_stream(file, SCHEMA) as stream:
                for batch in batches(bad.set_aside(items)):
                    stream.write_batch(to_batch(batch, self._lengths(batch)))
                    rows += len(batch)
                    paths += sum(isinstance(i, str) for record in batch for i in record.images)
        report = {
            "piece": _as_json(piece),
            "rows": rows,
            "problems": bad.count,
            "image_paths": paths,
            "size": file.size,
            "sha256": file.digest.hexdigest(),
            "problems_sha256": listed.digest.hexdigest(),
        }
        write_json(self.folder / f"{number:05d}.json", report)
        return report

    def _lengths(self, batch: list[Record]) -> list[int | None] | None:
        """Lengths in tokens; None for a record that this encoder can't encode, which stays."""
        if self.encoder is None:
            return None
        return [
            None if isinstance(length, BadRecord) else length
            for length in self.encoder.lengths(batch)
        ]


def _as_json(piece: Piece | None) -> list | None:
    return None if piece is None else list(dataclasses.astuple(piece))


class _Problems:
    """Passes records on and writes what is none to ``file``."""

    def __init__(self, name: str, file: "_Hashed") -> None:
        self.name, self.file, self.count = name, file, 0

    def set_aside(self, items: Iterable[Record | BadRecord]) -> Iterator[Record]:
        """The records among ``items``."""
        for item in items:
            if isinstance(item, BadRecord):
                # Escaped: the reason may quote text that is not Unicode.
                problem = json.dumps(dataclasses.asdict(Problem.of(self.name, item)))
                self.file.write(problem.encode("ascii") + b"\n")
                self.count += 1
            else:
                yield item


class _Hashed:
    """A file for writing that knows its size and sha256, moved into place when it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.digest, self.size, self.closed = hashlib.sha256(), 0, False

    def __enter__(self) -> "_Hashed":
        self._partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        self._file = open(self._partial, "wb")
        return self

    def write(self, content) -> int:
        self.digest.update(content)
        self.size += memoryview(content).nbytes
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Arrow closes what it writes to; the file is closed when its block ends."""

    def __exit__(self, kind, error, traceback) -> None:
        self._file.close()
        if kind is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink()
