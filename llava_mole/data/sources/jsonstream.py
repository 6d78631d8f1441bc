"""JSON items one at a time: lines of JSONL, or the elements of one large array.

An array is decoded piece by piece by the standard library's scanner, so a 1.5 GB file of one array
takes the memory of one piece.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK = 4 * 2**20


class Broken:
    """Stands in for an item that is not JSON; ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def items(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yields ``(line, item)`` of a JSON array or a JSONL file, told apart by the first character.

    ``line`` is 1-based, where the item begins. In JSONL, a line that is not JSON yields `Broken`
    and reading goes on; blank lines are passed over.

    Raises:
        ValueError: an array that is broken or cut off; the message names the line.
    """
    with open(path, "rb") as file:
        head = file.read(65536).removeprefix(codecs.BOM_UTF8).lstrip()
    return _array(Path(path)) if head.startswith(b"[") else _lines(Path(path))


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield number, Broken(f"not a JSON object on one line ({error})")


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        text, position, line, ended = "", 0, 1, False
        expected = "["
        while True:
            # Separators first: they are single characters.
            while position < len(text) and text[position].isspace():
                line += text[position] == "\n"
                position += 1
            if position < len(text) and expected != "item":
                character = text[position]
                if character == "]" and expected != "[":
                    _nothing_follows(path, text[position + 1 :], file, line)
                    return
                if character == expected or (expected == "item or ]"):
                    if character == expected:
                        position += 1
                    expected = {"[": "item or ]", ",": "item", "item or ]": "item"}[expected]
                    continue
                raise ValueError(f"{path}:{line}: expected {expected!r}, found {character!r}")
            if position < len(text):
                item, end, problem = _decode(decoder, text, position)
                # A number or word at the very end may go on in the next piece.
                if problem is None and (end < len(text) or ended):
                    yield line, item
                    line += text.count("\n", position, end)
                    position, expected = end, ","
                    continue
                if ended:
                    raise ValueError(f"{path}:{line}: not JSON ({problem}); fetch the file again")
            elif ended:
                raise ValueError(f"{path}:{line}: the array is cut off; fetch the file again")
            # The unread rest is at most one item, unless the item itself spans many pieces: then
            # pieces grow with it, so that decoding it again stays linear in its length.
            more = file.read(max(CHUNK, len(text) - position))
            text, position, ended = text[position:] + more, 0, not more


def _decode(decoder: json.JSONDecoder, text: str, position: int) -> tuple[Any, int, str | None]:
    try:
        item, end = decoder.raw_decode(text, position)
    except (ValueError, RecursionError) as error:
        return None, position, str(error)
    return item, end, None


def _nothing_follows(path: Path, rest: str, file, line: int) -> None:
    if rest.strip() or file.read().strip():
        raise ValueError(f"{path}:{line}: text after the end of the array; remove it")
