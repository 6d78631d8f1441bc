"""A prepared folder: Arrow shards that `datasets.load_from_disk` reads, and how they came about.

``data-00000-of-00040.arrow`` ..., ``dataset_info.json`` and ``state.json`` are Hugging Face's;
``problems.jsonl`` lists what was no record, and ``prepared.json``, written last, says from which
files and settings the folder was made.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import datasets
import pyarrow as pa

from llava_mole.data.prepared.columns import FEATURES
from llava_mole.data.records import Problem
from llava_mole.files import file_sha256

FORMAT_VERSION = 2
INFO = "prepared.json"
PROBLEMS = "problems.jsonl"


@dataclass(frozen=True)
class Prepared:
    """A complete prepared folder.

    Attributes:
        folder: where it is.
        name: the source's name.
        records: number of rows.
        problems: number of items that were no records, listed in ``problems.jsonl``.
        image_root: folder that image paths start from; ``folder`` where no record has a path.
        lengths: fingerprint of the encoder of the column ``length``, or None where it is empty.
        stamp: sha256 of all content: equal stamps, equal records and problems.
        shards: the Arrow files in order.
        digests: their sha256.
    """

    folder: Path
    name: str
    records: int
    problems: int
    image_root: Path
    lengths: str | None
    stamp: str
    shards: tuple[Path, ...]
    digests: tuple[str, ...]

    def rows(self) -> datasets.Dataset:
        """All rows, memory-mapped.

        Raises:
            ValueError: a shard is damaged.
        """
        table = datasets.table.concat_tables([_mapped(shard) for shard in self.shards])
        info = datasets.DatasetInfo(features=FEATURES)
        return datasets.Dataset(table, info=info, fingerprint=self.stamp[:16])

    def verify(self) -> None:
        """Reads every shard whole and compares it with what was written.

        Raises:
            ValueError: a shard has changed since.
        """
        for shard, digest in zip(self.shards, self.digests, strict=True):
            if file_sha256(shard) != digest:
                raise ValueError(_damaged(shard, "its content has changed since it was written"))

    def problems_listed(self, dataset: str | None = None) -> "ProblemFile":
        """What was no record, in order, reported under ``dataset`` (default: the name)."""
        return ProblemFile(self.folder / PROBLEMS, self.problems, dataset or self.name)


class ProblemFile(Sequence[Problem]):
    """The lines of a ``problems.jsonl``, read when they are asked for: there may be millions.

    Args:
        path: the file.
        count: number of its lines.
        dataset: data set that problems are reported under.
    """

    def __init__(self, path: Path, count: int, dataset: str) -> None:
        self.path, self.count, self.dataset = path, count, dataset

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Problem]:
        if not self.count:
            return
        with open(self.path, encoding="utf-8") as file:
            for line in itertools.islice(file, self.count):
                yield Problem(**{**json.loads(line), "dataset": self.dataset})

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index):
        """Reads the file up to ``index``."""
        if isinstance(index, slice):
            wanted = range(self.count)[index]
            if wanted.step < 0:
                return list(self)[index]
            return list(itertools.islice(self, wanted.start, wanted.stop, wanted.step))
        number = range(self.count)[index]
        return next(itertools.islice(self, number, None))


def load(folder: str | os.PathLike[str]) -> Prepared:
    """Opens a prepared folder without reading its rows.

    Raises:
        ValueError: it is none, another version wrote it, or a shard is missing or cut off.
    """
    folder = Path(folder)
    info = read_info(folder)
    if info is None:
        remedy = "make it with 'llava-mole data prepare'"
        if folder.with_name(folder.name + ".partial").is_dir():
            remedy = "its preparation was stopped: run it again, it goes on where it was"
        raise ValueError(f"{folder} is not a prepared data set (no {INFO}); {remedy}")
    for shard in info["shards"]:
        path = folder / shard["file"]
        size = path.stat().st_size if path.is_file() else None
        if size != shard["size"]:
            found = "is missing" if size is None else f"has {size:,} bytes, not {shard['size']:,}"
            raise ValueError(_damaged(path, found))
    return Prepared(
        folder,
        info["source"]["name"],
        info["records"],
        info["problems"],
        # Images in the records need no folder: the published one may be gone.
        Path(os.path.realpath(folder / info["image_root"])) if info["image_paths"] else folder,
        info["lengths"] and info["lengths"]["fingerprint"],
        info["stamp"],
        tuple(folder / shard["file"] for shard in info["shards"]),
        tuple(shard["sha256"] for shard in info["shards"]),
    )


def _mapped(shard: Path) -> datasets.table.Table:
    try:
        return datasets.table.MemoryMappedTable.from_file(str(shard))
    # Arrow finds damage in many ways, and reads the schema's metadata as JSON.
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(_damaged(shard, f"can't be read ({error})")) from None


def _damaged(shard: Path, how: str) -> str:
    return f"{shard} {how}; copy the folder again, or prepare it anew with --overwrite"


def read_info(folder: Path) -> dict[str, Any] | None:
    """Content of ``prepared.json``; None where there is none.

    Raises:
        ValueError: it is damaged or of another version.
    """
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        version = info["format_version"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(_damaged(folder / INFO, f"is damaged ({error})")) from None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format {version}, not {FORMAT_VERSION}; prepare it anew with --overwrite"
        )
    return info


def write_info(
    folder: Path, plan: dict[str, Any], image_root: str, shards: Sequence[dict[str, Any]]
) -> None:
    """Writes the JSON files beside the shards, ``prepared.json`` last.

    Args:
        folder: holds the shards and ``problems.jsonl``.
        plan: files and settings, as `prepare` compares them.
        image_root: relative to the final folder, or absolute.
        shards: in order, each with ``file``, and what `ShardWriter` reports.
    """
    datasets.DatasetInfo(features=FEATURES).write_to_directory(str(folder))
    content = [[shard["sha256"], shard["problems_sha256"]] for shard in shards]
    stamp = hashlib.sha256(json.dumps([FORMAT_VERSION, content]).encode()).hexdigest()
    state = {
        "_data_files": [{"filename": shard["file"]} for shard in shards],
        "_fingerprint": stamp[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(folder / "state.json", state)
    info = {
        **plan,
        "records": sum(shard["rows"] for shard in shards),
        "problems": sum(shard["problems"] for shard in shards),
        "image_paths": sum(shard["image_paths"] for shard in shards),
        "image_root": image_root,
        "shards": [
            {key: shard[key] for key in ("file", "rows", "size", "sha256")} for shard in shards
        ],
        "stamp": stamp,
    }
    write_json(folder / INFO, info)


def write_json(path: Path, value: Any) -> None:
    """Replaces ``path`` in one step."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
