"""PathVQA: the authors' pickles and images, or the hub's parquet files.

The authors' folder (``pvqa``) has two lists for a split, ``qas/SPLIT/SPLIT_qa.pkl`` with
``{"image": "train_0422", "question": ..., "answer": ...}`` and ``qas/SPLIT_vqa.pkl`` with
``{"img_id", "sent", "label": {ANSWER: 1}, "answer_type", "question_id", ...}``. The first is read
where it is there: it is the list that all published counts are of (19,755, 6,279 and 6,761
questions), and has the answers as they were written. The second stands in for it. Images are
``images/SPLIT/NAME.jpg``.

The hub's copy (``image``, ``question``, ``answer``) carries its images, and is not the same set:
duplicates are gone (19,654, 6,259 and 6,719 rows) and all text is in lower case.

Stray spaces, U+2003 among them, become single spaces; case is kept. One question about one image
may have several answers; each is a record. ``task`` is ``yes/no``, ``number`` or ``open``, as
``answer_type`` says or, without it, as the answer shows: "no necrosis" is open.

Not verifiable without the files: that the two lists agree, and their order.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from llava_mole.data.records import IMAGE_TOKEN, BadRecord, Record, Turn
from llava_mole.data.sources.source import Piece
from llava_mole.data.sources.unpickle import load_plain

VERSION = 1
SPLITS = {"train": "train", "val": "validation", "test": "test"}
# Of parquet, uncompressed; a row group is never cut.
PIECE_BYTES = 64 * 2**20

_TASKS = {"yes/no": "yes/no", "number": "number", "other": "open"}
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?%?")


@dataclass(frozen=True)
class PathVQASource:
    """Reads PathVQA.

    Attributes:
        folder: the authors' ``pvqa`` or what holds it, or the folder of the parquet files (or what
            holds it as ``data``).
        split: a key of `SPLITS`.
    """

    folder: str
    split: str = "train"

    name: ClassVar[str] = "pathvqa"

    def settings(self) -> dict[str, Any]:
        """See `Source`."""
        return {"reader": self.name, "version": VERSION, "split": self.split}

    def image_root(self) -> str:
        """The folder that has ``images``; not used for parquet, which carries its images."""
        return self._raw() or self.folder

    def files(self) -> list[str]:
        """The split's pickle, or its parquet files in their order.

        Raises:
            ValueError: an unknown split, or neither is there.
        """
        if self.split not in SPLITS:
            raise ValueError(
                f"pathvqa: split is {self.split!r}; choose one of {', '.join(SPLITS)}."
            )
        if raw := self._raw():
            candidates = [
                os.path.join(raw, "qas", self.split, f"{self.split}_qa.pkl"),
                os.path.join(raw, "qas", f"{self.split}_vqa.pkl"),
            ]
            found = [file for file in candidates if os.path.isfile(file)]
            if not found:
                raise ValueError(f"pathvqa: neither of {' and '.join(candidates)} is there.")
            return found[:1]
        for folder in (os.path.join(self.folder, "data"), self.folder):
            names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            files = [
                os.path.join(folder, name)
                for name in names
                if name.endswith(".parquet") and name.startswith(f"{SPLITS[self.split]}-")
            ]
            if files:
                return files
        raise ValueError(
            f"pathvqa: {self.folder} has neither pvqa/qas (the authors' pickles) nor "
            f"data/{SPLITS[self.split]}-*.parquet (the hub's)."
        )

    def pieces(self) -> Iterator[Piece]:
        """The pickle as one piece; parquet by row groups.

        Raises:
            ValueError: a file that can't be read; a pickle that holds more than plain data.
        """
        for file in self.files():
            if file.endswith(".pkl"):
                yield Piece(file, 0, len(_questions(file)), 1)
            else:
                yield from _row_groups(file)

    def read(self, piece: Piece) -> Iterator[Record | BadRecord]:
        """The questions of a piece in order; one with several answers is several records."""
        parquet = piece.file.endswith(".parquet")
        rows = _parquet_rows(piece) if parquet else _questions(piece.file)
        # Lines begin anew in each parquet file, ids must not.
        stem = os.path.basename(piece.file)[: -len(".parquet")] if parquet else self.split
        for line, row in enumerate(rows, start=piece.line):
            try:
                answers = _answers(row)
                image = _image(row) if parquet else _path(row, self.split)
                question = _text(row, "question", "sent")
            except ValueError as error:
                yield BadRecord(str(error), piece.file, line, f"{stem}-{line}")
                continue
            for index, answer in enumerate(answers):
                id = f"{stem}-{line}" + (f"-{index + 1}" if len(answers) > 1 else "")
                turns = (Turn("user", f"{IMAGE_TOKEN}\n{question}"), Turn("assistant", answer))
                try:
                    task = _task(row.get("answer_type"), answer)
                    yield Record(id, self.name, task, (image,), turns, piece.file, line)
                except BadRecord as error:
                    yield error

    def _raw(self) -> str | None:
        """The folder that has ``qas``, if it is the authors' copy."""
        for folder in (os.path.join(self.folder, "pvqa"), self.folder):
            if os.path.isdir(os.path.join(folder, "qas")):
                return folder
        return None


def _questions(file: str) -> list:
    content = load_plain(file)
    if not isinstance(content, list):
        raise ValueError(f"{file}: holds a {type(content).__name__}, not a list of questions.")
    return content


def _row_groups(file: str) -> Iterator[Piece]:
    import pyarrow.parquet

    with _naming(file), pyarrow.parquet.ParquetFile(file) as parquet:
        missing = {"image", "question", "answer"} - set(parquet.schema_arrow.names)
        if missing:
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        groups = [
            (group.num_rows, group.total_byte_size)
            for group in map(parquet.metadata.row_group, range(parquet.num_row_groups))
        ]
    start = stop = size = 0
    for rows, weight in groups:
        if stop > start and size + weight > PIECE_BYTES:
            yield Piece(file, start, stop, start + 1)
            start, size = stop, 0
        stop, size = stop + rows, size + weight
    if stop > start:
        yield Piece(file, start, stop, start + 1)


def _parquet_rows(piece: Piece) -> Iterator[dict]:
    import pyarrow.parquet

    with _naming(piece.file), pyarrow.parquet.ParquetFile(piece.file) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            if piece.start <= first < piece.stop:
                columns = ["image", "question", "answer"]
                for batch in parquet.iter_batches(64, row_groups=[group], columns=columns):
                    yield from batch.to_pylist()
            first += parquet.metadata.row_group(group).num_rows


@contextlib.contextmanager
def _naming(file: str) -> Iterator[None]:
    """Names the file in what pyarrow raises."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file}: {error}; fetch the file again") from None


def _answers(row: Any) -> list[str]:
    if not isinstance(row, dict):
        raise ValueError(f"{type(row).__name__} instead of a question; fetch the file again")
    label = row.get("label")
    if isinstance(label, dict) and "answer" not in row:
        if not label or not all(isinstance(answer, str) for answer in label):
            raise ValueError("label: must have answers for keys; fetch the file again")
        return [_clean(answer) for answer in label]
    return [_text(row, "answer")]


def _text(row: dict, *keys: str) -> str:
    """The first of ``keys`` that the row has, with single spaces."""
    key = next((key for key in keys if key in row), keys[0])
    value = row.get(key)
    # An answer that is a number has been read as one.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{key}: must be a text; fetch the file again")
    return _clean(str(value))


def _clean(text: str) -> str:
    return " ".join(text.split())


def _path(row: dict, split: str) -> str:
    name = row.get("image", row.get("img_id"))
    if not isinstance(name, str) or not name:
        raise ValueError("image: must be the name of an image; fetch the file again")
    return f"images/{split}/{name}.jpg"


def _image(row: dict) -> bytes:
    image = row["image"]
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes):
        raise ValueError("image: the file carries no image for this question; fetch it again")
    return data


def _task(answer_type: Any, answer: str) -> str:
    if isinstance(answer_type, str) and answer_type in _TASKS:
        return _TASKS[answer_type]
    word = answer.rstrip(".").lower()
    if word in ("yes", "no"):
        return "yes/no"
    return "number" if _NUMBER.fullmatch(word) else "open"
