"""ShareGPT4V as published: one JSON array for pre-training captions, one for instructions.

Rows are LLaVA's. A caption row is one question and one answer about one image. In the instructions,
text-only rows have no ``image`` (and an empty ``model``), and ``<image>`` stands first or last in
its turn; neither needs care beyond `Record`'s own rules. The top folder of the image's path tells
the collection that it comes from and becomes the record's ``source``; rows without one are
``text``.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_mole.data.records import BadRecord, Record
from llava_mole.data.sources import jsonstream, llava
from llava_mole.data.sources.source import Piece

FILES = {
    "pretrain": "share-captioner_coco_lcs_sam_1246k_1107.json",
    "instruct": "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json",
}
TASKS = {"pretrain": "caption", "instruct": "conversation"}
# Folders that image paths begin with.
IMAGE_FOLDERS = (
    "coco",
    "sam",
    "llava",
    "gqa",
    "ocr_vqa",
    "textvqa",
    "vg",
    "share_textvqa",
    "web-celebrity",
    "web-landmark",
    "wikiart",
)
_FOLDERS = (".", "sharegpt4v", "share4v", "ShareGPT4V")


@dataclass(frozen=True)
class ShareGPT4VSource:
    """The captions or the instructions of ShareGPT4V.

    Attributes:
        path: the JSON file, its folder, or the folder that holds ``sharegpt4v/`` beside the images'
            folders.
        stage: ``pretrain`` or ``instruct``.
    """

    path: str
    stage: str

    def __post_init__(self) -> None:
        """Raises ValueError for a stage that was not published."""
        if self.stage not in FILES:
            raise ValueError(f"stage is {self.stage!r}; choose one of {', '.join(FILES)}.")

    @property
    def name(self) -> str:
        """``sharegpt4v-pretrain`` or ``sharegpt4v-instruct``."""
        return f"sharegpt4v-{self.stage}"

    def settings(self) -> dict[str, Any]:
        """See `Source`."""
        return {"version": 1, "stage": self.stage}

    def image_root(self) -> str:
        """Where most of the images' folders lie: the JSON's folder or the one above."""
        folder = Path(self._file()).absolute().parent
        # Before any image is there, the published layout decides.
        places = [folder, folder.parent]
        if folder.name in _FOLDERS:
            places.reverse()
        found = [sum((place / name).is_dir() for name in IMAGE_FOLDERS) for place in places]
        return str(places[found.index(max(found))])

    def files(self) -> list[str]:
        """The one file."""
        return [self._file()]

    def pieces(self) -> Iterator[Piece]:
        """See `Source`."""
        yield from jsonstream.pieces(self._file())

    def read(self, piece: Piece) -> Iterator[Record | BadRecord]:
        """See `Source`."""
        for line, row in jsonstream.items(piece):
            try:
                yield self._record(row, piece.file, line)
            except BadRecord as error:
                yield error

    def _record(self, row: Any, file: str, line: int) -> Record:
        record = llava.parse(row, "text", file, line, TASKS[self.stage])
        if self.stage == "pretrain":
            turns = row["conversations"]
            if len(turns) != 2:
                raise record.bad(
                    f"conversations: {len(turns)} turns where a caption has one of the human and "
                    "one of gpt; remove the row or prepare the file as 'llava'"
                )
            if len(record.images) != 1:
                raise record.bad(
                    f"image: {len(record.images)} image(s) where a caption has exactly one; remove "
                    "the row or prepare the file as 'llava'"
                )
        if record.images and not row.get("source"):
            folder = record.images[0].lstrip("./").partition("/")[0]
            return dataclasses.replace(record, source=folder or record.source)
        return record

    def _file(self) -> str:
        path = Path(self.path)
        if path.is_file():
            return str(path)
        name = FILES[self.stage]
        for folder in _FOLDERS:
            if (path / folder / name).is_file():
                return str(path / folder / name)
        raise ValueError(
            f"{self.path}: no {name} here or in its sharegpt4v/; fetch it from the hub's "
            "Lin-Chen/ShareGPT4V (llava-mole data download), or give the file itself"
        )
