"""Small pictures of a benchmark's images, each image read once."""

import hashlib
import io
from collections.abc import Hashable, Sequence

from PIL import Image
from tqdm import tqdm

from llava_mole.data.images.read import ImageError
from llava_mole.eval.questions import Question
from llava_mole.eval.scores import Scored

SIDE = 128
_QUALITY = 60


def thumbnail(image: Image.Image) -> bytes:
    """The image as a JPEG of at most 128 x 128, without any of its metadata."""
    scale = min(1.0, SIDE / max(image.size))
    width, height = (max(1, round(scale * side)) for side in image.size)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    small = rgb.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    # Pillow writes a comment found here into the file.
    small.info = {}
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def thumbnails(
    scored: Sequence[Scored], progress: bool = False
) -> tuple[list[bytes | None], list[int]]:
    """Each distinct image's thumbnail, and which of them belongs to which question.

    Args:
        scored: the questions.
        progress: whether to show a progress bar.

    Returns:
        JPEG files, None for an image that can't be read; and for every question the place of its
        image among them, -1 for text alone.
    """
    pictures: list[bytes | None] = []
    places: dict[Hashable, int] = {}
    indices = []
    for one in tqdm(scored, desc="thumbnails", unit=" questions", disable=not progress):
        if one.question.image is None:
            indices.append(-1)
            continue
        identity = _identity(one.question)
        if identity not in places:
            places[identity] = len(pictures)
            pictures.append(_read(one.question))
        indices.append(places[identity])
    return pictures, indices


def _identity(question: Question) -> Hashable:
    if isinstance(question.image, bytes):
        return hashlib.sha256(question.image).digest()
    return question.image_root, question.image


def _read(question: Question) -> bytes | None:
    try:
        image = question.load_image()
    except ImageError:
        return None
    assert image is not None
    return thumbnail(image)
