"""A large JSON array or a JSONL file, cut into pieces without parsing it, and each piece's items.

Cutting needs no more than the commas between an array's elements (or the line ends of JSONL). They
are found by one pass over the bytes that follows quotes, escapes and brackets with array
operations, several times faster than parsing, in the memory of one chunk whatever the size of an
element. In UTF-8 no byte of a longer character looks like any of these signs, so the pass needs no
decoding and byte offsets come for free.

What is wrong inside an element is found when its piece is parsed and stays that element's problem;
only brackets and quotes that do not balance, as in a file that was cut off, spoil the whole.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from llava_mole.data.sources.source import Piece

CHUNK = 4 * 2**20
# A piece ends after this many items or bytes, whichever comes first.
PIECE_ITEMS = 20_000
PIECE_BYTES = 256 * 2**20
# A hostile item of this size takes up to a gigabyte once parsed; an image of 48 MiB fits.
MAX_ITEM = 64 * 2**20

_DECODER = json.JSONDecoder()
_SPACE = b" \t\r\n"
_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _COMMA = 1, 2, 3, 4, 5
_CODES = bytearray(256)
for _characters, _code in ((b'"', _QUOTE), (b"\\", _BACKSLASH), (b"[{", _OPEN), (b"]}", _CLOSE)):
    for _character in _characters:
        _CODES[_character] = _code
_CODES[ord(",")] = _COMMA


class Broken:
    """Stands in for an item that is not JSON; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def pieces(path: str | Path) -> Iterator[Piece]:
    """Cuts a JSON array or a JSONL file, told apart by the first character.

    Raises:
        ValueError: an array that is cut off or goes on after its end, or no UTF-8 text at all; the
            message names the line.
    """
    with open(path, "rb") as file:
        start, line, array = _beginning(file, path)
        ends = _array_ends(file, path, start, line) if array else _line_ends(file, start)
        yield from _cut(str(path), ends, start, line, array)


def items(piece: Piece) -> Iterator[tuple[int, Any]]:
    """Yields ``(line, item)`` of a piece that `pieces` cut, in order.

    ``line`` is 1-based, where the item begins. What is not JSON is `Broken`; blank lines of JSONL
    are passed over.
    """
    with open(piece.file, "rb") as file:
        array = _beginning(file, piece.file)[2]
        file.seek(piece.start)
        for line, content in _elements(file, piece) if array else _lines(file, piece):
            yield line, _parsed(content)


def _parsed(content: bytes | None) -> Any:
    if content is None:
        return Broken(f"more than {MAX_ITEM:,} bytes")
    if not content:
        return Broken("nothing between two commas, or after the last")
    try:
        return _DECODER.decode(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return Broken(f"not a JSON value ({error})")


def _beginning(file: BinaryIO, path: str | Path) -> tuple[int, int, bool]:
    """Offset and line of the first item's beginning, and whether it is an array's."""
    head = file.read(4)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\x1f\x8b")) or b"\0" in head:
        raise ValueError(f"{path}: not UTF-8 text; unpack or convert it to UTF-8 JSON")
    start = 3 * head.startswith(codecs.BOM_UTF8)
    offset, line, sign = _skip_space(file, start, 1)
    if sign != b"[":
        return start, 1, False
    return (*_skip_space(file, offset + 1, line)[:2], True)


def _skip_space(file: BinaryIO, offset: int, line: int) -> tuple[int, int, bytes]:
    """Offset, line and sign of the next byte that is no white space; b"" at the end."""
    file.seek(offset)
    while chunk := file.read(65536):
        text = chunk.lstrip(_SPACE)
        skipped = len(chunk) - len(text)
        offset, line = offset + skipped, line + chunk.count(b"\n", 0, skipped)
        if text:
            return offset, line, text[:1]
    return offset, line, b""


# ---- cutting


# (offset of a chunk, its bytes, offsets behind the items that end in it)
_Ends = Iterator[tuple[int, bytes, np.ndarray]]


def _cut(path: str, ends: _Ends, start: int, line: int, array: bool) -> Iterator[Piece]:
    # An array's piece leaves out the comma behind it.
    tail = 1 if array else 0
    count, counted, here = 0, start, line
    for offset, chunk, stops in ends:
        while True:
            index = min(PIECE_ITEMS - count - 1, np.searchsorted(stops, start + PIECE_BYTES))
            if index >= len(stops):
                break
            stop = int(stops[index])
            yield Piece(path, start, stop - tail, line)
            here += chunk.count(b"\n", counted - offset, stop - offset)
            start, line, count, counted, stops = stop, here, 0, stop, stops[index + 1 :]
        count += len(stops)
        here += chunk.count(b"\n", counted - offset)
        counted = offset + len(chunk)
    if counted > start:
        yield Piece(path, start, counted, line)


def _line_ends(file: BinaryIO, start: int) -> _Ends:
    file.seek(start)
    while chunk := file.read(CHUNK):
        found = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
        yield start, chunk, found + start + 1
        start += len(chunk)


def _array_ends(file: BinaryIO, path: str | Path, start: int, line: int) -> _Ends:
    scanner = _Scanner()
    last, last_line, here = start, line, line
    for offset, chunk in _chunks(file, start):
        commas, closed = scanner.feed(chunk)
        if len(commas):
            last = offset + int(commas[-1]) + 1
            last_line = here + chunk.count(b"\n", 0, int(commas[-1]) + 1)
        if closed is None:
            here += chunk.count(b"\n")
            yield offset, chunk, commas + offset + 1
            continue
        here += chunk.count(b"\n", 0, closed)
        if chunk[closed : closed + 1] != b"]":
            raise ValueError(f"{path}:{here}: the array ends with '}}'; fetch the file again")
        file.seek(offset + closed + 1)
        while rest := file.read(CHUNK):
            if rest.strip(_SPACE):
                raise ValueError(f"{path}:{here}: text after the end of the array; remove it")
        if closed or offset > start:
            yield offset, chunk[:closed], commas + offset + 1
        return
    last_line = _skip_space(file, last, last_line)[1]
    raise ValueError(
        f"{path}:{last_line}: the array is cut off, or quotes and brackets do not balance: what "
        "begins here has no end; fetch the file again"
    )


class _Scanner:
    """Finds the commas between an array's elements, chunk by chunk, from behind its ``[``."""

    def __init__(self) -> None:
        self.depth, self.in_string = 1, 0

    def feed(self, chunk: bytes) -> tuple[np.ndarray, int | None]:
        """Offsets in ``chunk`` of commas of the array itself, and of the bracket that closes it.

        Args:
            chunk: no end between a backslash and what it escapes.
        """
        codes = np.frombuffer(chunk.translate(_CODES), np.uint8)
        # Of booleans, this is many times faster than of the codes themselves.
        where = np.flatnonzero(codes != 0)
        kinds = codes[where]
        quotes = (kinds == _QUOTE) & ~_escaped(where, kinds == _BACKSLASH)
        inside = (np.cumsum(quotes, dtype=np.int64) + self.in_string) & 1
        if len(inside):
            self.in_string = int(inside[-1])
        outside = (inside == 0) & (kinds >= _OPEN)
        where, kinds = where[outside], kinds[outside]
        steps = (kinds == _OPEN).astype(np.int64) - (kinds == _CLOSE)
        depth = np.cumsum(steps) + self.depth
        if len(depth):
            self.depth = int(depth[-1])
        commas = where[(kinds == _COMMA) & (depth == 1)]
        closing = where[depth == 0][:1]
        if not len(closing):
            return commas, None
        return commas[commas < closing[0]], int(closing[0])


def _escaped(where: np.ndarray, backslashes: np.ndarray) -> np.ndarray:
    """Whether each sign (at offset ``where``) comes right behind an escaping backslash."""
    if not backslashes.any():
        return backslashes
    adjacent = np.zeros(len(where), dtype=bool)
    adjacent[1:] = backslashes[:-1] & (np.diff(where) == 1)
    # In a run of backslashes the first escapes the second, the third the fourth, and so on.
    index = np.arange(len(where))
    run = np.maximum.accumulate(np.where(backslashes & ~adjacent, index, 0))
    escaping = backslashes & ((index - run) % 2 == 0)
    escaped = np.zeros(len(where), dtype=bool)
    escaped[1:] = escaping[:-1] & adjacent[1:]
    return escaped


def _chunks(file: BinaryIO, start: int, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """``(offset, bytes)`` up to ``stop``; no chunk ends between a backslash and what it escapes."""
    file.seek(start)
    held = b""
    while True:
        wanted = CHUNK if stop is None else min(CHUNK, stop - start - len(held))
        read = file.read(wanted) if wanted > 0 else b""
        chunk = held + read
        if not chunk:
            return
        odd = (len(chunk) - len(chunk.rstrip(b"\\"))) % 2
        held = b"\\" if odd and read else b""
        if held:
            chunk = chunk[:-1]
        if chunk:
            yield start, chunk
        start += len(chunk)


# ---- one piece's items, as bytes; None for one that is too large


def _lines(file: BinaryIO, piece: Piece) -> Iterator[tuple[int, bytes | None]]:
    line, left = piece.line, piece.stop - piece.start
    while left > 0:
        content = file.readline(min(left, MAX_ITEM + 1))
        if not content:
            break
        left -= len(content)
        whole = len(content) <= MAX_ITEM
        while not content.endswith(b"\n") and left > 0:
            content = file.readline(min(left, CHUNK))
            if not content:
                break
            left -= len(content)
        if not whole:
            yield line, None
        elif content := content.strip(_SPACE):
            yield line, content
        line += 1


def _elements(file: BinaryIO, piece: Piece) -> Iterator[tuple[int, bytes | None]]:
    scanner = _Scanner()
    line = piece.line
    # Of the element that is being read: its parts so far, their size and line breaks.
    parts: list[bytes] = []
    size = breaks = 0
    for _, chunk in _chunks(file, piece.start, piece.stop):
        commas, closed = scanner.feed(chunk)
        if closed is not None:
            raise ValueError(f"{piece.file}: was changed while it was read; start again")
        begin = 0
        for comma in (*commas.tolist(), None):
            part = chunk[begin:comma]
            if not size:
                stripped = part.lstrip(_SPACE)
                line += part.count(b"\n", 0, len(part) - len(stripped))
                part = stripped
            size += len(part)
            breaks += part.count(b"\n")
            if size <= MAX_ITEM:
                parts.append(part)
            else:
                parts.clear()
            if comma is not None:
                yield line, b"".join(parts).rstrip(_SPACE) if size <= MAX_ITEM else None
                line, begin = line + breaks, comma + 1
                parts, size, breaks = [], 0, 0
    yield line, b"".join(parts).rstrip(_SPACE) if size <= MAX_ITEM else None
