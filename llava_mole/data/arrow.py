"""Converted records on disk: memory-mapped Arrow tables, made once for each file's content.

Opening two million rows takes milliseconds and no memory, and all processes of a machine share the
pages. A table is written beside its final name and renamed, so that a reader or a second process
sees the whole or nothing.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import datasets
from datasets.arrow_writer import ArrowWriter

from llava_mole.data.config import DatasetConfig
from llava_mole.data.images import default_root
from llava_mole.data.records import BadRecord, Record, Turn
from llava_mole.data.sources import llava

FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "source": datasets.Value("string"),
        "task": datasets.Value("string"),
        "images": datasets.List(
            {"path": datasets.Value("string"), "bytes": datasets.Value("binary")}
        ),
        "turns": datasets.List(
            {"role": datasets.Value("string"), "content": datasets.Value("string")}
        ),
        "length": datasets.Value("int32"),
        "file": datasets.Value("string"),
        "line": datasets.Value("int64"),
    }
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One bad record in a report."""

    dataset: str
    file: str
    line: int
    id: str
    reason: str

    @classmethod
    def of(cls, dataset: str, error: BadRecord) -> "Problem":
        """The report's line for ``error``."""
        return cls(dataset, error.file, error.line, error.id, error.reason)

    def __str__(self) -> str:
        return str(BadRecord(self.reason, self.file, self.line, self.id))


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """A data set that is open: its well-formed records, and the problems of the others.

    Attributes:
        name: the data set's name.
        domain: its group, "" outside a mixture.
        weight: sampling frequency: the domain's weight times the set's.
        image_root: folder that image paths start from.
        rows: Arrow table with the columns of `FEATURES`, in file order.
        problems: rows of the file that are not records.
        stamp: identity of the content: another stamp wherever a record might differ.
        lengths: fingerprint of the `Encoder` that the column ``length`` was counted with, or None
            where it is empty.
    """

    name: str
    domain: str
    weight: float
    image_root: Path
    rows: datasets.Dataset
    problems: tuple[Problem, ...]
    stamp: str
    lengths: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def record(self, row: int) -> Record:
        """The record of ``row``."""
        return to_record(self.rows[row])

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """The records from ``start`` up to ``stop``, read in blocks."""
        stop = len(self.rows) if stop is None else min(stop, len(self.rows))
        for first in range(start, stop, 1000):
            block = self.rows[first : min(first + 1000, stop)]
            for values in zip(*block.values(), strict=True):
                yield to_record(dict(zip(block, values, strict=True)))


def to_record(row: dict) -> Record:
    """A row of the table as a record."""
    turns = tuple(Turn(turn["role"], turn["content"]) for turn in row["turns"])
    images = tuple(
        image["path"] if image["bytes"] is None else image["bytes"] for image in row["images"]
    )
    return Record(row["id"], row["source"], row["task"], images, turns, row["file"], row["line"])


def open_dataset(
    config: DatasetConfig,
    domain: str = "",
    domain_weight: float = 1.0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> RecordSet:
    """Opens a data set, converting its file first unless that was done before.

    Args:
        config: where it is.
        domain: group that it belongs to.
        domain_weight: the group's weight, multiplied with the set's own.
        cache_dir: where conversions are kept; default ``~/.cache/llava_mole``.

    Raises:
        ValueError: no such file or image root, or a file that is broken as a whole.
    """
    path = Path(config.path)
    if not path.is_file():
        raise ValueError(
            f"data set {config.name!r}: {path} is not a file; correct its path, or make the data "
            "with 'llava-mole data prepare'"
        )
    try:
        image_root = default_root(path, config.image_root)
    except ValueError as error:
        raise ValueError(f"data set {config.name!r}: {error}") from None
    table, bad = _converted(path, config.name, _cache_folder(cache_dir))
    with open(bad, encoding="utf-8") as file:
        problems = tuple(Problem(**json.loads(line)) for line in file)
    rows = datasets.Dataset.from_file(str(table))
    # Multiplied as decimals: 0.7 * 0.1 in floats is not 0.07, and counts are exact.
    weight = float(Fraction(repr(domain_weight)) * Fraction(repr(config.weight)))
    return RecordSet(config.name, domain, weight, image_root, rows, problems, table.stem)


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is None:
        return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "llava_mole"
    return Path(cache_dir)


def _converted(path: Path, name: str, cache: Path) -> tuple[Path, Path]:
    """Table and problem list of ``path``, written now unless the same content was before."""
    status = path.stat()
    key = [
        str(path.resolve()),
        str(path),
        status.st_size,
        status.st_mtime_ns,
        name,
        llava.VERSION,
        2,
    ]
    stem = f"{path.stem[:40]}-{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}"
    table, bad = cache / f"{stem}.arrow", cache / f"{stem}.bad.jsonl"
    if not (table.exists() and bad.exists()):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".partial-") as partial:
            new_table, new_bad = Path(partial) / "table", Path(partial) / "bad"
            _write(path, name, new_table, new_bad)
            os.replace(new_bad, bad)
            os.replace(new_table, table)
    return table, bad


def _write(path: Path, name: str, table: Path, bad: Path) -> None:
    with (
        open(bad, "w", encoding="utf-8") as problems,
        ArrowWriter(features=FEATURES, path=str(table)) as writer,
    ):
        for item in llava.read(path, name):
            if isinstance(item, BadRecord):
                problem = dataclasses.asdict(Problem.of(name, item))
                # Escaped: the reason may quote text that is not Unicode.
                problems.write(json.dumps(problem) + "\n")
            else:
                writer.write(_to_row(item))
        writer.finalize()


def _to_row(record: Record) -> dict:
    turns = [{"role": turn.role, "content": turn.content} for turn in record.turns]
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    images = [
        {"path": None, "bytes": image}
        if isinstance(image, bytes)
        else {"path": image, "bytes": None}
        for image in record.images
    ]
    return {**values, "images": images, "turns": turns, "length": None}
