"""M3IT as published: ``data/GROUP/DATASET/*.jsonl`` with base64 images, and instructions.json.

A sample becomes one exchange: the images in their order, one ``<image>`` each, then instruction and
inputs on lines of their own; answered by the outputs. Several images stay several: both pictures of
nlvr, the pictures of a vist story, the frames of a video. A row without an instruction of its own
gets one of its data set's, chosen by a hash of seed, data set and line, so it is the same however
many processes read and whatever else is chosen.

The paper uses M3IT "filtered to 1.6 million" and doesn't say how. That is taken to be the training
split, whose rows sum to 1,592,320 in M3IT's card: the default is every data set of the card, its
Chinese and video ones included, split ``train``.
"""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from llava_mole.data.records import BadRecord, Record, Turn
from llava_mole.data.sources import embedded, jsonstream
from llava_mole.data.sources.jsonstream import Broken
from llava_mole.data.sources.m3it_layout import Part, find_parts, part_of
from llava_mole.data.sources.m3it_rows import Sample, read_classes, read_instructions, samples
from llava_mole.data.sources.slots import with_images
from llava_mole.data.sources.source import Piece

VERSION = 1


@dataclass(frozen=True)
class M3ITSource:
    """Reads M3IT's files.

    Attributes:
        folder: the download, with ``data`` in it.
        groups: folders (``vqa``) or the card's further tasks (``kvqa``, ``chinese``, ``video``) to
            take; with ``datasets`` all of both, with neither everything in the card.
        datasets: data sets to take, as card or folder call them; ``NAME-rephrased`` for the later
            rephrasing of some.
        exclude: groups or data sets to leave out.
        split: ``train``, ``val`` or ``test``.
        seed: of the instructions drawn.
    """

    folder: str
    groups: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    split: str = "train"
    seed: int = 0

    name: ClassVar[str] = "m3it"

    def settings(self) -> dict[str, Any]:
        """What the records depend on besides the files."""
        return {
            "reader": self.name,
            "version": VERSION,
            "groups": list(self.groups),
            "datasets": list(self.datasets),
            "exclude": list(self.exclude),
            "split": self.split,
            "seed": self.seed,
        }

    def image_root(self) -> str:
        """The folder; not used, as the images are in the rows."""
        return self.folder

    def files(self) -> list[str]:
        """The chosen data sets' files, each followed by its instructions and classes.

        Raises:
            ValueError: not M3IT's layout, or an unknown choice; lists the known ones.
        """
        files: list[str] = []
        for part in self._parts():
            found = (part.file, _instructions_file(part), *_classes_files(part))
            files += [file for file in found if file is not None]
        # A rephrased edition shares its data set's.
        return list(dict.fromkeys(files))

    def pieces(self) -> Iterator[Piece]:
        """Ranges of lines of each data set in turn."""
        for part in self._parts():
            yield from jsonstream.pieces(part.file)

    def read(self, piece: Piece) -> Iterator[Record | BadRecord]:
        """The samples of a piece in order; several of a row that has several captions."""
        part = part_of(piece.file)
        for line, row in jsonstream.items(piece):
            try:
                if isinstance(row, Broken):
                    raise ValueError(f"{row.reason}; fetch the file again or remove the line")
                draw = functools.partial(_draw, f"{self.seed}/{part.name}/{line}")
                found = samples(part.name, row, _classes(*_classes_files(part)), draw)
                images = tuple(_decode(text, index) for index, text in enumerate(found[0].images))
            except ValueError as error:
                yield BadRecord(str(error), piece.file, line, self._id(part, line))
                continue
            for index, sample in enumerate(found):
                id = self._id(part, line) + (f"-{index + 1}" if len(found) > 1 else "")
                try:
                    yield self._record(part, sample, images, line, index, id)
                except BadRecord as error:
                    yield error

    def _record(
        self, part: Part, sample: Sample, images: tuple[bytes, ...], line: int, index: int, id: str
    ) -> Record:
        instruction = sample.instruction
        if instruction is None or not instruction.strip():
            known = _instructions(_instructions_file(part))
            if not known and not sample.inputs.strip():
                raise BadRecord(
                    f"no instruction and no inputs; fetch instructions.json into {part.folder}",
                    part.file,
                    line,
                    id,
                )
            drawn = _draw(f"{self.seed}/{part.name}/{line}", f"instruction {index}", len(known))
            instruction = known[drawn] if known else ""
        turns = (
            Turn("user", with_images(sample.prompt(instruction), len(images))),
            Turn("assistant", sample.outputs.strip()),
        )
        source = f"{self.name}/{part.name}"
        return Record(id, source, part.group, images, turns, part.file, line)

    def _parts(self) -> list[Part]:
        return find_parts(self.folder, self.groups, self.datasets, self.exclude, self.split)

    def _id(self, part: Part, line: int) -> str:
        return f"{part.name}-{self.split}-{line}"


def _draw(key: str, purpose: str, count: int) -> int:
    """A number below ``count`` that key and purpose decide, evenly; 0 if there is none."""
    digest = hashlib.sha256(f"{key}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % max(count, 1)


def _decode(text: str, index: int) -> bytes:
    try:
        return embedded.decode(text)
    except ValueError as error:
        raise ValueError(
            f"image {index + 1}: {error}; fetch the file again or leave the row out"
        ) from None


def _instructions_file(part: Part) -> str | None:
    return part.beside("instructions.json", "instruction.json")


def _classes_files(part: Part) -> tuple[str | None, str | None]:
    return part.beside("mapping.txt"), part.beside("labels.json")


_instructions = functools.lru_cache(maxsize=256)(read_instructions)
_classes = functools.lru_cache(maxsize=256)(read_classes)
