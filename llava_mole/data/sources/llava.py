"""LLaVA's conversation format: a JSON array, or JSONL with one such object a line.

``{"id": "a", "image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\\nQ"},
{"from": "gpt", "value": "A"}]}``, optionally with ``source`` and ``task``. ``image`` may be a list;
without it the row is text alone. Consecutive turns of the human are joined by a line break. An
array is streamed, not read at once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava_mole.data.records import BadRecord, Record, Turn
from llava_mole.data.sources.jsonstream import Broken, items

# Raise when the same file would give other records than before: cached conversions are then redone.
VERSION = 1

ROLE_OF = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def read(path: str | Path, source: str) -> Iterator[Record | BadRecord]:
    """Yields the file's rows in order, each as a record or as the error in its place.

    Args:
        path: JSON array or JSONL.
        source: stands in where a row names no ``source``.

    Raises:
        ValueError: an array that is broken as a whole.
    """
    file = str(path)
    for line, row in items(path):
        try:
            yield parse(row, source, file, line)
        except BadRecord as error:
            yield error


def parse(row: Any, source: str, file: str = "", line: int = 0) -> Record:
    """One decoded row as a record.

    Raises:
        BadRecord: it is not one.
    """
    if isinstance(row, Broken):
        raise BadRecord(f"{row.reason}; repair or remove the line", file, line)
    if not isinstance(row, dict):
        raise BadRecord(
            f"{type(row).__name__} instead of an object; repair or remove it", file, line
        )
    id = _text(row, "id", str(line), file, line, str(line))
    images = row.get("image")
    images = [] if images is None else [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise BadRecord("image: must be a path, a list of paths or absent", file, line, id)
    return Record(
        id=id,
        source=_text(row, "source", source, file, line, id),
        task=_text(row, "task", "", file, line, id),
        images=tuple(images),
        turns=tuple(_turns(row.get("conversations"), file, line, id)),
        file=file,
        line=line,
    )


def _turns(conversations: Any, file: str, line: int, id: str) -> list[Turn]:
    if not isinstance(conversations, list):
        raise BadRecord(
            'conversations: must be a list of {"from": ..., "value": ...}', file, line, id
        )
    turns: list[Turn] = []
    for index, item in enumerate(conversations):
        where = f"conversations[{index}]"
        if not isinstance(item, dict) or not isinstance(item.get("value"), str):
            raise BadRecord(f"{where}: must have a text 'value'", file, line, id)
        speaker = item.get("from")
        role = ROLE_OF.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise BadRecord(
                f"{where}: from {str(speaker)[:50]!r}; write 'human' or 'gpt'", file, line, id
            )
        if role == "user" and turns and turns[-1].role == "user":
            turns[-1] = Turn("user", f"{turns[-1].content}\n{item['value']}")
        else:
            turns.append(Turn(role, item["value"]))
    return turns


def _text(row: dict, key: str, default: str, file: str, line: int, id: str) -> str:
    value = row.get(key)
    if value is None or value == "":
        return default
    if not isinstance(value, str | int):
        raise BadRecord(f"{key}: must be a text, not {type(value).__name__}", file, line, id)
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRecord(f"{key}: not Unicode text; repair its escapes", file, line) from None
    return text
