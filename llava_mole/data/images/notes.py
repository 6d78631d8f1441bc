"""What reading an image quietly changes, for the audit: counted by key, shown as text.

The pixels are those that LLaVA and Pillow give, even where that is not what the eye would see; a
note says so where it happens.
"""

import os
from dataclasses import dataclass

from PIL import Image

from llava_mole.data.images.headers import ORIENTATION, check_exif

# Names that a file of a format usually has; the content decides, but a lie is worth knowing.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
}
_KNOWN = tuple(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)


@dataclass(frozen=True)
class Note:
    """One thing that reading an image changes.

    Attributes:
        key: short and stable, to count by: ``cmyk``, ``colour_space``, ``16_bit``, ``float``,
            ``alpha``, ``palette_transparency``, ``transparent_colour``, ``orientation``,
            ``frames``, ``misnamed``, ``reduced``.
        text: what happens, and what to do where it loses something.
    """

    key: str
    text: str


def notes_of(image: Image.Image, path: str, reduced: tuple[int, int] | None) -> tuple[Note, ...]:
    """Notes about an image of which only the header was read.

    Args:
        image: opened, at its page.
        path: its path, whose ending may be wrong; "" if it has none.
        reduced: (width, height) it will be reduced to; ``None`` if it is left as it is.
    """
    notes = [*_colours(image), *_layout(image), *_name(image, path)]
    if reduced:
        width, height = image.size
        notes.append(Note("reduced", f"reduced from {width}x{height} to {reduced[0]}x{reduced[1]}"))
    return tuple(notes)


def _colours(image: Image.Image) -> list[Note]:
    mode, notes = image.mode, []
    if mode == "CMYK":
        notes.append(Note("cmyk", "mode CMYK, converted to RGB without its colour profile"))
    elif mode in ("LAB", "YCbCr", "HSV") and image.format == "TIFF":
        notes.append(Note("colour_space", f"mode {mode}, converted to RGB"))
    elif mode.startswith("I"):
        notes.append(
            Note(
                "16_bit",
                f"mode {mode}: every value above 255 becomes white, as in LLaVA; to keep the "
                "shades, save it with 8 bits",
            )
        )
    elif mode == "F":
        notes.append(
            Note(
                "float",
                "mode F: cut to whole values from 0 to 255, as in LLaVA; to keep the shades, "
                "save it with 8 bits",
            )
        )
    if mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        notes.append(
            Note(
                "alpha",
                f"mode {mode}: alpha dropped, as LLaVA does; to hide what lies under transparent "
                "areas, save it on a background",
            )
        )
    elif "transparency" in image.info and mode == "P":
        notes.append(
            Note("palette_transparency", "mode P with transparency: shown in the palette's colours")
        )
    elif "transparency" in image.info:
        notes.append(
            Note("transparent_colour", f"mode {mode}: its transparent colour is shown as it is")
        )
    return notes


def _layout(image: Image.Image) -> list[Note]:
    notes = []
    # Pillow itself turns a TIFF as its tag says, and so LLaVA does.
    if image.format != "TIFF" and (turn := _orientation(image)):
        notes.append(
            Note(
                "orientation",
                f"EXIF orientation {turn} ignored, as LLaVA does; to see it upright, turn it and "
                "save it again",
            )
        )
    if image.format in ("GIF", "WEBP", "PNG") and _is_animated(image):
        notes.append(Note("frames", f"an animated {image.format}: the first frame is used"))
    return notes


def _is_animated(image: Image.Image) -> bool:
    try:
        return getattr(image, "is_animated", False)
    # A GIF looks at its second frame for the answer. Where that is damaged, the first still stands.
    except Exception:
        return False


def _orientation(image: Image.Image) -> int | None:
    exif = image.info.get("exif")
    if exif is None:
        return None
    try:
        check_exif(exif)
        orientation = image.getexif().get(ORIENTATION)
    # EXIF is decoration, and damaged more often than not: what can't be read turns nothing.
    except Exception:
        return None
    return orientation if isinstance(orientation, int) and 2 <= orientation <= 8 else None


def _name(image: Image.Image, path: str) -> list[Note]:
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _KNOWN and suffix not in _SUFFIXES.get(str(image.format), ()):
        return [Note("misnamed", f"a {image.format} named {suffix}, read by its content")]
    return []
