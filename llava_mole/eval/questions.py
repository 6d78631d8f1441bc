"""A record as a question: its last turn is the reference, the turns before it are the prompt."""

import os

from PIL import Image

from llava_mole.data.images.read import load_image
from llava_mole.data.records import IMAGE_TOKEN, Record, Turn


def prompt_of(record: Record) -> list[dict[str, str]]:
    """The turns up to the last question, as `llava_mole.generate` takes them."""
    return [{"role": turn.role, "content": turn.content} for turn in record.turns[:-1]]


def reference_of(record: Record) -> str:
    """What the last assistant's turn says."""
    return record.turns[-1].content


def question_of(record: Record) -> str:
    """The last question's text without image slots."""
    return plain_text(record.turns[-2])


def plain_text(turn: Turn) -> str:
    """A turn's text without image slots."""
    return turn.content.replace(IMAGE_TOKEN, "").strip()


def image_of(record: Record, root: str | os.PathLike[str]) -> Image.Image | None:
    """The record's image, None for text alone.

    Raises:
        BadRecord: it has several images.
        ImageError: the image can't or must not be read.
    """
    if len(record.images) > 1:
        raise record.bad(f"has {len(record.images)} images; one at most can be asked about")
    return load_image(record.images[0], root) if record.images else None
