"""Images that a data set carries as base64 text, to the bytes of the image file."""

import base64
import binascii
import re

from llava_mole.data.images.read import MAX_BYTES

# What files of the six formats that images.py reads begin with.
_SIGNATURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM|II\*\0|MM\0\*|RIFF.{4}WEBP", re.DOTALL
)
# The same in base64, as far as whole characters go.
_BEGINNINGS = (
    "/9j/",
    "_9j_",
    "iVBORw0KGgo",
    "R0lGODdh",
    "R0lGODlh",
    "Qk",
    "SUkqA",
    "TU0AK",
    "UklGR",
)
_DATA_URL = re.compile(r"data:[^,;]{0,100}(;[^,;]{0,100}){0,3};base64,", re.IGNORECASE)
_URL_SAFE = str.maketrans("-_", "+/")


def decode(text: str) -> bytes:
    """The image file that ``text`` holds.

    A ``data:...;base64,`` in front, white space and the URL-safe alphabet are accepted; anything
    else that is not base64, padding included, is an error. Pixels are not looked at.

    Args:
        text: base64.

    Raises:
        ValueError: not base64, too large, or not a file of a format that is read; says which.
    """
    start = 0
    if text[:5].lower() == "data:":
        prefix = _DATA_URL.match(text)
        if prefix is None:
            raise ValueError("a data URL without ';base64,'")
        start = prefix.end()
    # Before anything is copied: white space aside, four characters are three bytes.
    if len(text) - start > 2 * MAX_BYTES:
        raise ValueError(f"{len(text):,} characters of base64; at most {MAX_BYTES >> 20} MiB")
    data = _plain(text[start:] if start else text)
    if data is None:
        compact = "".join(text[start:].split()).translate(_URL_SAFE)
        if not compact:
            raise ValueError("empty")
        if len(compact) % 4:
            raise ValueError(f"not base64 ({len(compact):,} characters, no multiple of 4: cut off)")
        try:
            data = base64.b64decode(compact, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"not base64 ({error})") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data):,} bytes; at most {MAX_BYTES >> 20} MiB")
    if not _SIGNATURES.match(data):
        raise ValueError("base64, but not of a JPEG, PNG, WebP, GIF, BMP or TIFF")
    return data


def _plain(text: str) -> bytes | None:
    """What base64 without anything to tolerate holds, which nearly all is; else None."""
    if not text or len(text) % 4:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def looks_embedded(text: str) -> bool:
    """Whether a string that may be a path or an image is an image.

    Decided from the text alone, not by what lies on the disk: a path that happens to be base64
    doesn't begin like an image file.
    """
    if text[:5].lower() == "data:":
        return True
    if not text[:64].lstrip().startswith(_BEGINNINGS):
        return False
    # 16 characters hold the longest signature; a path nearly always has a dot among the first few.
    head = "".join(text[:64].split())[:16].translate(_URL_SAFE)
    if len(head) < 16:
        return False
    try:
        return _SIGNATURES.match(base64.b64decode(head, validate=True)) is not None
    except (binascii.Error, ValueError):
        return False
