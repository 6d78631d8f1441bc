"""LLaVA's conversation format: a JSON array, or JSONL with one such object a line.

``{"id": "a", "image": "coco/1.jpg", "conversations": [{"from": "human", "value": "<image>\\nQ"},
{"from": "gpt", "value": "A"}]}``, optionally with ``source`` and ``task``. ``image`` may be a list;
without it the row is text alone. Consecutive turns of the human are joined by a line break.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_mole.data.records import BadRecord, Record, Turn, encodable
from llava_mole.data.sources import jsonstream
from llava_mole.data.sources.jsonstream import Broken
from llava_mole.data.sources.source import Piece

ROLE_OF = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True)
class LlavaSource:
    """One file of LLaVA rows.

    Attributes:
        path: JSON array or JSONL.
        name: stands in where a row names no ``source``.
    """

    path: str
    name: str

    def settings(self) -> dict[str, Any]:
        """See `Source`."""
        return {"version": 2, "name": self.name}

    def image_root(self) -> str:
        """The file's own folder."""
        return str(Path(self.path).parent)

    def files(self) -> list[str]:
        """The one file.

        Raises:
            ValueError: it is not there.
        """
        if not Path(self.path).is_file():
            raise ValueError(f"{self.path} is not a file; give LLaVA JSON or JSONL")
        return [str(self.path)]

    def pieces(self) -> Iterator[Piece]:
        """See `Source`."""
        yield from jsonstream.pieces(self.path)

    def read(self, piece: Piece) -> Iterator[Record | BadRecord]:
        """See `Source`."""
        for line, row in jsonstream.items(piece):
            try:
                yield parse(row, self.name, piece.file, line)
            except BadRecord as error:
                yield error


def parse(row: Any, source: str, file: str = "", line: int = 0, task: str = "") -> Record:
    """One decoded row as a record.

    Args:
        row: what the JSON says.
        source: stands in where the row names none; ``task`` likewise.
        file: where the row was read.
        line: 1-based line there.
        task: see ``source``.

    Raises:
        BadRecord: it is not one.
    """
    if isinstance(row, Broken):
        raise BadRecord(f"{row.reason}; repair or remove it", file, line)
    if not isinstance(row, dict):
        raise BadRecord(
            f"{type(row).__name__} instead of an object; repair or remove it", file, line
        )
    id = _text(row, "id", str(line), file, line, str(line))
    images = row.get("image")
    if isinstance(images, str):
        images = [images]
    elif images is None:
        images = []
    elif not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise BadRecord("image: must be a path, a list of paths or absent", file, line, id)
    return Record(
        id=id,
        source=_text(row, "source", source, file, line, id),
        task=_text(row, "task", task, file, line, id),
        images=tuple(images),
        turns=_turns(row.get("conversations"), file, line, id),
        file=file,
        line=line,
    )


def _turns(conversations: Any, file: str, line: int, id: str) -> tuple[Turn, ...]:
    if not isinstance(conversations, list):
        raise BadRecord(
            'conversations: must be a list of {"from": ..., "value": ...}', file, line, id
        )
    turns: list[Turn] = []
    # Texts of the user's turns that follow one another, joined in time linear in their length.
    waiting: list[str] = []
    for index, item in enumerate(conversations):
        text = item.get("value") if isinstance(item, dict) else None
        if not isinstance(text, str):
            raise BadRecord(f"conversations[{index}]: must have a text 'value'", file, line, id)
        speaker = item.get("from")
        role = ROLE_OF.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise BadRecord(
                f"conversations[{index}]: from {str(speaker)[:50]!r}; write 'human' or 'gpt'",
                file,
                line,
                id,
            )
        if role == "user":
            waiting.append(text)
            continue
        if waiting:
            turns.append(Turn("user", "\n".join(waiting)))
            waiting = []
        turns.append(Turn(role, text))
    if waiting:
        turns.append(Turn("user", "\n".join(waiting)))
    return tuple(turns)


def _text(row: dict, key: str, default: str, file: str, line: int, id: str) -> str:
    value = row.get(key)
    if value is None or value == "":
        return default
    if not isinstance(value, str | int):
        raise BadRecord(f"{key}: must be a text, not {type(value).__name__}", file, line, id)
    text = str(value)
    if not encodable(text):
        raise BadRecord(f"{key}: not Unicode text; repair its escapes", file, line)
    return text
