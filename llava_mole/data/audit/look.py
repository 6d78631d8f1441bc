"""One look at a block of a data set's rows: images, lengths, and a hash to tell duplicates by.

Works on the table's columns: two million rows never become two million Python records unless their
tokens have to be counted. Imports no torch by itself, so that worker processes start quickly.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from llava_mole.data.images.notes import Note
from llava_mole.data.images.read import MAX_BYTES, ImageError, check_exists, inspect, load_image
from llava_mole.data.prepared.recordset import RecordSet
from llava_mole.data.records import BadRecord, Problem

if TYPE_CHECKING:
    from llava_mole.data.tokens.encode import Encoder

# An image stored in the table counts in the hash by its size and this much of both its ends.
_ENDS = 4096
_MAX_IMAGES = np.iinfo(np.int16).max
# Questions about one image mostly stand close together: enough to look at each once.
_REMEMBERED = 65536


@dataclasses.dataclass
class Block:
    """What a look at n rows found.

    Attributes:
        keep: which are good, (n,) bool.
        lengths: tokens of each, (n,) int32, 0 where bad or not counted.
        num_images: images of each, (n,) int16.
        hashes: (n,) uint64, equal for the same images and turns.
        names: the sources that occur.
        sources: of each row, its index in ``names``, (n,) int32.
        problems: of the bad rows, in order.
        shortened: good rows whose last turns are left out.
        notes: what is peculiar about images, with how many and one of them: (count, where).
    """

    keep: np.ndarray
    lengths: np.ndarray
    num_images: np.ndarray
    hashes: np.ndarray
    names: list[str]
    sources: np.ndarray
    problems: list[Problem]
    shortened: int
    notes: dict[str, tuple[int, str]]


class Look:
    """Checks rows of one data set.

    Args:
        records: the data set.
        encoder: to find samples that don't fit; ``None`` leaves that out.
        check_images: ``exists`` or ``decode``.
    """

    def __init__(
        self, records: RecordSet, encoder: "Encoder | None" = None, check_images: str = "exists"
    ) -> None:
        self.records, self.encoder = records, encoder
        self.decodes = check_images == "decode"
        self.table = records.rows.data
        self.counted = encoder is not None and records.lengths == encoder.fingerprint
        self._known = functools.lru_cache(maxsize=_REMEMBERED)(self._look_at)

    def __call__(self, start: int, stop: int) -> Block:
        """Looks at rows ``start`` up to ``stop``."""
        table = self.table.fast_slice(start, stop - start)
        num_rows = len(table)
        source = table["source"].combine_chunks().dictionary_encode()
        hashes, counts = _hashes(table)
        self._notes: dict[str, tuple[int, str]] = {}
        reasons = self._image_reasons(table, counts, start)
        lengths = np.zeros(num_rows, dtype=np.int32)
        num_images = np.minimum(counts, _MAX_IMAGES).astype(np.int16)
        shortened = 0
        if self.encoder is not None:
            shortened = self._encode(table, start, reasons, lengths, num_images)
        keep = np.ones(num_rows, dtype=bool)
        keep[list(reasons)] = False
        return Block(
            keep=keep,
            lengths=lengths,
            num_images=num_images,
            hashes=hashes,
            names=source.dictionary.to_pylist(),
            sources=source.indices.to_numpy(zero_copy_only=False).astype(np.int32),
            problems=[self._problem(table, row, reasons[row]) for row in sorted(reasons)],
            shortened=shortened,
            notes=self._notes,
        )

    def reason(self, row: int) -> str | None:
        """What is wrong with the images of ``row``."""
        table = self.table.fast_slice(row, 1)
        self._notes = {}
        return self._image_reasons(table, _hashes(table)[1], row).get(0)

    def _image_reasons(self, table: pa.Table, counts: np.ndarray, start: int) -> dict[int, str]:
        """Row in ``table`` to what is wrong with its images."""
        reasons: dict[int, str] = {}
        owners = np.repeat(np.arange(len(counts)), counts)
        number = 0
        for batch in table.select(["images"]).to_batches():
            images = batch.column(0).flatten()
            paths = images.field("path").to_pylist()
            content = images.field("bytes")
            for index, path in enumerate(paths):
                row = int(owners[number])
                number += 1
                if row in reasons:
                    continue
                if path is not None and not content[index].is_valid:
                    reason, notes = self._known(path)
                else:
                    reason, notes = self._look_inside(content[index])
                if reason:
                    reasons[row] = reason
                where = path if path is not None else f"the image in row {start + row}"
                merge_notes(self._notes, {note.key: (1, f"{where}: {note.text}") for note in notes})
        for row in np.flatnonzero(counts > _MAX_IMAGES):
            reasons[int(row)] = f"{counts[row]:,} images in one record; cut it into several"
        return reasons

    def _look_inside(self, content: pa.BinaryScalar) -> tuple[str | None, Sequence[Note]]:
        """What is wrong with an image in the table; its size is enough unless it is decoded."""
        buffer = content.as_buffer()
        size = 0 if buffer is None else buffer.size
        if not self.decodes and 0 < size <= MAX_BYTES:
            return None, ()
        return self._look_at(buffer.to_pybytes() if size else b"")

    def _look_at(self, image: str | bytes) -> tuple[str | None, Sequence[Note]]:
        try:
            if self.decodes:
                load_image(image, self.records.image_root)
                return None, inspect(image, self.records.image_root)
            check_exists(image, self.records.image_root)
        except ImageError as error:
            return str(error), ()
        return None, ()

    def _encode(
        self,
        table: pa.Table,
        start: int,
        reasons: dict[int, str],
        lengths: np.ndarray,
        num_images: np.ndarray,
    ) -> int:
        """Fills in lengths and adds to reasons; returns how many samples are shortened."""
        if self.counted:
            lengths[:] = table["length"].fill_null(0).to_numpy()
        rows = [row for row in range(len(table)) if not lengths[row] and row not in reasons]
        for row, length in zip(rows, self.encoder.lengths(self._read(start, rows)), strict=True):
            if isinstance(length, BadRecord):
                reasons[row] = length.reason
            else:
                lengths[row] = length
        shortened = 0
        for row in np.flatnonzero(lengths > self.encoder.max_length).tolist():
            if row in reasons:
                continue
            try:
                encoded = self.encoder(self.records.record(start + row))
            except BadRecord as error:
                reasons[row] = error.reason
                continue
            lengths[row], num_images[row] = len(encoded.input_ids), len(encoded.images)
            shortened += encoded.dropped_turns > 0
        return shortened

    def _read(self, start: int, rows: Sequence[int]) -> list:
        """The records of ``rows``, counted from ``start``; neighbours are read together."""
        if not rows:
            return []
        stop = rows[-1] + 1
        if 20 * len(rows) < stop:
            return [self.records.record(start + row) for row in rows]
        wanted = set(rows)
        block = self.records.records(start, start + stop)
        return [record for row, record in enumerate(block) if row in wanted]

    def _problem(self, table: pa.Table, row: int, reason: str) -> Problem:
        file, line, id = (table[name][row].as_py() for name in ("file", "line", "id"))
        return Problem(self.records.name, file, line, id, reason)


def duplicates(hashes: np.ndarray) -> np.ndarray:
    """Positions of the values of ``hashes`` (n,) that occurred before, ascending, int64."""
    order = np.argsort(hashes, kind="stable")
    again = hashes[order[1:]] == hashes[order[:-1]]
    return np.sort(order[1:][again])


def _hashes(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each row's images and turns, (n,) uint64, and its number of images, (n,) int64."""
    hashes = np.empty(len(table), dtype=np.uint64)
    counts = np.empty(len(table), dtype=np.int64)
    row = 0
    for batch in table.select(["images", "turns"]).to_batches():
        images, turns = batch.column(0), batch.column(1)
        image_ends = _ends(images)
        counts[row : row + len(batch)] = np.diff(image_ends)
        parts = [
            (image_ends, _text(images.flatten().field("path"))),
            (image_ends, _edges(images.flatten().field("bytes"))),
            (_ends(turns), _text(turns.flatten().field("content"))),
        ]
        for index in range(len(batch)):
            digest = hashlib.blake2b(digest_size=8)
            for ends, put in parts:
                put(digest.update, int(ends[index]), int(ends[index + 1]))
            hashes[row + index] = int.from_bytes(digest.digest(), "little")
        row += len(batch)
    return hashes, counts


def _ends(lists: pa.ListArray) -> np.ndarray:
    """Where each list begins among the flattened values, and where the last ends, (n + 1,)."""
    offsets = lists.offsets.to_numpy()
    return offsets - offsets[0]


Put = Callable[[Callable[[bytes], None], int, int], None]


def _offsets(values: pa.Array) -> np.ndarray:
    width = np.int64 if pa.types.is_large_unicode(values.type) else np.int32
    if pa.types.is_large_binary(values.type):
        width = np.int64
    stored = np.frombuffer(values.buffers()[1], dtype=width)
    return stored[values.offset : values.offset + len(values) + 1]


def _text(values: pa.Array) -> Put:
    """Adds values ``start`` up to ``stop`` to a digest: sizes first, so that none runs together."""
    if not len(values) or values.buffers()[2] is None:
        return lambda update, start, stop: update(b"\0" * (stop - start))
    offsets, data = _offsets(values), memoryview(values.buffers()[2])

    def put(update, start, stop):
        borders = offsets[start : stop + 1]
        update((borders[1:] - borders[:-1]).astype(np.int64).tobytes())
        update(data[borders[0] : borders[-1]])

    return put


def _edges(values: pa.Array) -> Put:
    """As `_text` for large values: sizes, and the ends of each."""
    if not len(values) or values.null_count == len(values) or values.buffers()[2] is None:
        return lambda update, start, stop: None
    offsets, data = _offsets(values), memoryview(values.buffers()[2])

    def put(update, start, stop):
        for first, last in zip(offsets[start:stop], offsets[start + 1 : stop + 1], strict=True):
            update(int(last - first).to_bytes(8, "little"))
            update(data[first : min(first + _ENDS, last)])
            update(data[max(first, last - _ENDS) : last])

    return put


def merge_notes(
    into: dict[str, tuple[int, str]], notes: dict[str, tuple[int, str]]
) -> dict[str, tuple[int, str]]:
    """Adds counts up; the first example stays."""
    for note, (count, where) in notes.items():
        before, first = into.get(note, (0, where))
        into[note] = (before + count, first)
    return into
