"""Data sets as a run opens them: memory-mapped Arrow tables of records.

Opening two million rows takes milliseconds and no memory, and all processes of a machine share the
pages. A prepared folder is opened as it is; a LLaVA file is prepared into the cache first, once for
each content.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import datasets
import pyarrow as pa

from llava_mole.data.cache import cache_folder
from llava_mole.data.config import DatasetConfig
from llava_mole.data.images.read import default_root
from llava_mole.data.prepared.columns import to_record, to_records
from llava_mole.data.prepared.folder import FORMAT_VERSION, Prepared, load
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.records import Problem, Record
from llava_mole.data.sources.llava import LlavaSource

# Rows read at once.
_BLOCK = 1000
# A LLaVA file of this size is not prepared in silence.
_LARGE = 200 * 2**20


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
        folder: the prepared folder; None where the rows are of none.
    """

    name: str
    domain: str
    weight: float
    image_root: Path
    rows: datasets.Dataset
    problems: Sequence[Problem]
    stamp: str
    lengths: str | None = None
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def verify(self) -> None:
        """Raises ValueError where a file of the folder is not as it was written."""
        if self.folder is not None:
            load(self.folder).verify()

    def record(self, row: int) -> Record:
        """The record of ``row``."""
        return to_record(self.rows.data.fast_slice(row, 1).to_pylist()[0])

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """The records from ``start`` up to ``stop``, read in blocks."""
        stop = len(self.rows) if stop is None else min(stop, len(self.rows))
        table = self.rows.data
        for first in range(start, stop, _BLOCK):
            block = table.fast_slice(first, min(_BLOCK, stop - first))
            # Shards' batches are small where records carry images; a block of them may not be.
            for batch in block.to_batches():
                yield from to_records(pa.Table.from_batches([batch]))


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
    try:
        prepared = load(path) if path.is_dir() else _converted(path, config.name, cache_dir)
        root = config.image_root
        image_root = default_root(path, str(prepared.image_root) if root is None else root)
    except ValueError as error:
        raise ValueError(f"data set {config.name!r}: {error}") from None
    # Multiplied as decimals: 0.7 * 0.1 in floats is not 0.07, and counts are exact.
    weight = float(Fraction(repr(domain_weight)) * Fraction(repr(config.weight)))
    return RecordSet(
        config.name,
        domain,
        weight,
        image_root,
        prepared.rows(),
        prepared.problems_listed(config.name),
        prepared.stamp,
        prepared.lengths,
        prepared.folder,
    )


def _converted(path: Path, name: str, cache_dir: str | os.PathLike[str] | None) -> Prepared:
    """The file ``path`` as a prepared folder in the cache, made now unless it was before."""
    if not path.is_file():
        remedy = "correct its path, or make the data with 'llava-mole data prepare'"
        if path.with_name(path.name + ".partial").is_dir():
            remedy = "its preparation was stopped: run it again, it goes on where it was"
        raise ValueError(f"{path} is not a file or a prepared folder; {remedy}")
    status = path.stat()
    source = LlavaSource(str(path), name)
    content = (status.st_size, status.st_mtime_ns)
    key = [str(path.resolve()), str(path), *content, source.settings(), FORMAT_VERSION]
    digest = hashlib.sha256(repr(key).encode("utf-8", "surrogateescape")).hexdigest()
    output = cache_folder(cache_dir) / f"{path.stem[:40]}-{digest[:24]}"
    return prepare(source, output, progress=status.st_size > _LARGE)
