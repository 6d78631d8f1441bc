"""A question of a benchmark: what is asked about which image, and which answers are accepted."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from llava_mole.data.images.read import load_image
from llava_mole.data.records import IMAGE_TOKEN, Record, Turn


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique within its benchmark.
        part: what the benchmark reports by itself: an ability of eHub, PathVQA's ``open``.
        dataset: data set within the part; "" where the benchmark's files don't tell.
        turns: the prompt as `llava_mole.generate` takes it, the last turn a user's.
        references: accepted answers, never empty.
        image: path below ``image_root`` or the encoded image itself; None for text alone.
        image_root: folder that the path starts from.
        place: ``file:line`` that it was read from.
    """

    id: str
    part: str
    dataset: str
    turns: tuple[dict[str, str], ...]
    references: tuple[str, ...]
    image: str | bytes | None
    image_root: str
    place: str = ""

    @property
    def text(self) -> str:
        """The last question without image slots."""
        return self.turns[-1]["content"].replace(IMAGE_TOKEN, "").strip()

    def load_image(self) -> Image.Image | None:
        """The image as RGB, None for text alone.

        Raises:
            ImageError: it can't or must not be read.
        """
        return None if self.image is None else load_image(self.image, self.image_root)


def asked(text: str, with_image: bool = True) -> tuple[dict[str, str], ...]:
    """A prompt of one turn, the image in front of ``text``."""
    return ({"role": "user", "content": f"{IMAGE_TOKEN}\n{text}" if with_image else text},)


def from_record(
    record: Record, image_root: str | os.PathLike[str], part: str, references: Sequence[str] = ()
) -> Question:
    """A record's last turn as a question; its answer is the reference unless others are given.

    Raises:
        BadRecord: it has several images.
    """
    return Question(
        id=record.id,
        part=part,
        dataset="",
        turns=tuple(prompt_of(record)),
        references=tuple(references) or (record.turns[-1].content,),
        image=only_image(record),
        image_root=os.fspath(image_root),
        place=f"{record.file}:{record.line}",
    )


def prompt_of(record: Record) -> list[dict[str, str]]:
    """The turns up to the last question, as `llava_mole.generate` takes them."""
    return [{"role": turn.role, "content": turn.content} for turn in record.turns[:-1]]


def only_image(record: Record) -> str | bytes | None:
    """The record's image; None for text alone.

    Raises:
        BadRecord: it has several.
    """
    if len(record.images) > 1:
        raise record.bad(f"has {len(record.images)} images; one at most can be asked about")
    return record.images[0] if record.images else None


def image_of(record: Record, root: str | os.PathLike[str]) -> Image.Image | None:
    """The record's image, read.

    Raises:
        BadRecord: it has several.
        ImageError: it can't or must not be read.
    """
    image = only_image(record)
    return None if image is None else load_image(image, root)


def plain_text(turn: Turn) -> str:
    """A turn's text without image slots."""
    return turn.content.replace(IMAGE_TOKEN, "").strip()
