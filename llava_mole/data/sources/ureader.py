"""UReader's instruction data: ``ureader_json/{train,val}.jsonl``, ``test_*.jsonl`` and images.

A row is ``{"image": [PATH], "prompt": "", "text": "", "system_instruction": "", "conversations":
[{"from": "user", "value": "<image>"}, {"from": "user", "value": Q}, {"from": "assistant", "value":
A}], "task_type": "qa_sft"}``. As UReader's own training code does, the turns come from
``conversations`` with ``system_instruction`` in front of them, and ``prompt`` and ``text`` are not
used. The user's consecutive turns are joined by a line break. An answer ``None`` is an answer.

Image paths start from ``ureader_images``. A number behind the name (``x.tiff.2``) is a page and
stays in the path; UReader's code counts pages from 0. An image may be given as base64 instead.
The path names the data set: ``DUE_Benchmark/DocVQA/pngs/x.png`` is of DocVQA.

Train and val together are the 654,840 rows that UReader was trained on: split ``train+val``.
Not verifiable without the files: that no row has a ``system_instruction``, a text alone, or more
images than one.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from llava_mole.data.records import BadRecord, Record, Turn
from llava_mole.data.sources import embedded, jsonstream, llava
from llava_mole.data.sources.slots import as_text
from llava_mole.data.sources.source import Piece

VERSION = 1
DATASETS = (
    "ChartQA",
    "DeepForm",
    "DocVQA",
    "InfographicsVQA",
    "KleisterCharity",
    "TabFact",
    "TextCaps",
    "TextVQA",
    "VisualMRC",
    "WikiTableQuestions",
)
SPLITS = ("train", "val", "train+val", "test")


@dataclass(frozen=True)
class UReaderSource:
    """Reads UReader's files.

    Attributes:
        folder: holds ``ureader_json`` and ``ureader_images``.
        split: one of `SPLITS`.
        datasets: of `DATASETS`, those to take; all if empty.
        exclude: of `DATASETS`, those to leave out; the paper leaves out TextCaps.
    """

    folder: str
    split: str = "train"
    datasets: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    name: ClassVar[str] = "ureader"

    def settings(self) -> dict[str, Any]:
        """See `Source`."""
        return {
            "reader": self.name,
            "version": VERSION,
            "split": self.split,
            "datasets": list(self.datasets),
            "exclude": list(self.exclude),
        }

    def image_root(self) -> str:
        """``ureader_images``."""
        return os.path.join(self.folder, "ureader_images")

    def files(self) -> list[str]:
        """The split's JSONL files.

        Raises:
            ValueError: an unknown split or data set, or a file that is missing.
        """
        if self.split not in SPLITS:
            raise ValueError(
                f"ureader: split is {self.split!r}; choose one of {', '.join(SPLITS)}."
            )
        for key, names in (("datasets", self.datasets), ("exclude", self.exclude)):
            for name in names:
                if name not in DATASETS:
                    raise ValueError(
                        f"ureader: {key} names {name!r}; there are {', '.join(DATASETS)}."
                    )
        if self.split == "test":
            names = [f"test_{dataset}" for dataset in DATASETS if self._wants(dataset)]
        else:
            names = self.split.split("+")
        folder = os.path.join(self.folder, "ureader_json")
        files = [os.path.join(folder, f"{name}.jsonl") for name in names]
        for file in files:
            if not os.path.isfile(file):
                raise ValueError(
                    f"ureader: {file} is missing; unpack ureader_json.zip so that it is there."
                )
        return files

    def pieces(self) -> Iterator[Piece]:
        """Ranges of lines of each file in turn."""
        for file in self.files():
            yield from jsonstream.pieces(file)

    def read(self, piece: Piece) -> Iterator[Record | BadRecord]:
        """The rows of a piece in order, but for those of data sets that aren't chosen."""
        stem = os.path.basename(piece.file)[: -len(".jsonl")]
        for line, row in jsonstream.items(piece):
            try:
                record = self._record(row, stem, piece.file, line)
            except BadRecord as error:
                # Its data set can't be told, so it is shown whatever is chosen.
                yield error
                continue
            if self._wants(record.source.rpartition("/")[2]):
                yield record

    def _record(self, row: Any, stem: str, file: str, line: int) -> Record:
        if not isinstance(row, dict):
            return llava.parse(row, self.name, file, line)
        id = f"{stem}-{line}"
        images = row.get("image")
        images = [] if images is None else [images] if isinstance(images, str) else images
        named = images if isinstance(images, list) else []
        first = next((image for image in named if isinstance(image, str)), "")
        record = llava.parse(
            {
                "id": row.get("id") or id,
                "image": images,
                "conversations": row.get("conversations"),
                "source": f"{self.name}/{_dataset_of(first, stem)}",
                "task": row.get("task_type"),
            },
            self.name,
            file,
            line,
        )
        return dataclasses.replace(
            record,
            images=tuple(_image(image, record) for image in record.images),
            turns=_with_system(row.get("system_instruction"), record),
        )

    def _wants(self, dataset: str) -> bool:
        return (not self.datasets or dataset in self.datasets) and dataset not in self.exclude


def _dataset_of(image: str, stem: str) -> str:
    """The data set that an image path names; else the one that the file's name does."""
    parts = [] if embedded.looks_embedded(image) else image.split("/")
    parts = [part for part in parts if part not in ("", ".")]
    parts = parts[1:] if parts[:1] == ["DUE_Benchmark"] else parts
    if len(parts) > 1:
        return parts[0]
    return stem.removeprefix("test_") if stem.startswith("test_") else "unknown"


def _image(image: str | bytes, record: Record) -> str | bytes:
    if not isinstance(image, str) or not embedded.looks_embedded(image):
        return image
    try:
        return embedded.decode(image)
    except ValueError as error:
        raise record.bad(f"image: {error}; fetch the file again or remove the row") from None


def _with_system(system: Any, record: Record) -> tuple[Turn, ...]:
    """The turns, with the system instruction in front of the first.

    Of several instructions UReader's code draws one; here a hash of the record's id does.
    """
    if isinstance(system, list) and system:
        digest = hashlib.sha256(record.id.encode()).digest()
        system = system[int.from_bytes(digest[:8], "big") % len(system)]
    if system is None or system == [] or system == "":
        return record.turns
    if not isinstance(system, str):
        raise record.bad("system_instruction: must be a text or a list of texts")
    system = as_text(system.strip())
    if not system:
        return record.turns
    first, *others = record.turns
    return (Turn(first.role, f"{system}\n{first.content}"), *others)
