"""Image files that may be wrong or hostile to RGB images.

A path is resolved inside the image root and nowhere else; what is there must be a regular file of
one of six formats, recognised by content; its size, pixels and aspect are checked before a single
pixel is decoded. Colours are read as LLaVA does it: first frame, ``convert("RGB")``, no rotation by
EXIF.
"""

import functools
import io
import logging
import os
import stat
from pathlib import Path

from PIL import Image

logger = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_BYTES = 64 * 2**20
# Pillow's own limit against decompression bombs; RGBA and RGB of it together stay below 1 GiB.
MAX_PIXELS = 89_478_485
MAX_ASPECT = 100
# LLaVA pads to a square: a 60000 x 1000 strip would become 10.8 GB. Larger ones are reduced first.
MAX_SQUARE_PIXELS = 64_000_000


class ImageError(ValueError):
    """An image that can't or must not be read; the message names path and remedy."""


def resolve(path: str, root: str | os.PathLike[str]) -> str:
    """The real location of ``path`` inside ``root``, whether or not a file is there.

    Raises:
        ImageError: absolute path, URL, NUL, ``..``, or a symbolic link that leaves ``root``.
    """
    shown = path if len(path) <= 200 else path[:200] + "..."
    if "\0" in path:
        raise ImageError(f"image {shown!r}: NUL in the path; give a path relative to the root")
    if "://" in path or path.startswith("data:"):
        raise ImageError(f"image {shown!r}: URLs are never fetched; download it into {root}")
    if os.path.isabs(path) or path.startswith("~"):
        raise ImageError(f"image {shown!r}: absolute path; make it relative to image_root {root}")
    if ".." in path.replace("\\", "/").split("/"):
        raise ImageError(f"image {shown!r}: '..' in the path; make it relative to image_root")
    real_root = _real_directory(os.fspath(root))
    folder, name = os.path.split(path)
    candidate = os.path.join(_real_directory(os.path.join(real_root, folder)), name)
    try:
        if os.path.islink(candidate):
            candidate = os.path.realpath(candidate)
    except (OSError, ValueError) as error:
        raise ImageError(f"image {shown!r}: {error}") from None
    if os.path.commonpath([real_root, candidate]) != real_root:
        raise ImageError(
            f"image {shown!r}: a symbolic link leads outside image_root {root}; copy the images or "
            "set image_root to the real folder"
        )
    return candidate


def check_exists(path: str, root: str | os.PathLike[str]) -> None:
    """Checks by one stat that ``path`` is a regular file of allowed size inside ``root``.

    Raises:
        ImageError: it is not.
    """
    location = resolve(path, root)
    try:
        status = os.stat(location)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            f"image {path!r}: {reason} in {root}; add the file or correct image_root"
        ) from None
    _check_status(path, status)


def load_image(path: str, root: str | os.PathLike[str]) -> Image.Image:
    """The image ``path`` below ``root`` as RGB.

    Raises:
        ImageError: outside the root, missing, not a regular file, another format, too large in
            bytes, pixels or aspect, or its content is damaged.
    """
    location = resolve(path, root)
    try:
        # Non-blocking: opening a FIFO nobody writes to would hang before it could be refused.
        descriptor = os.open(location, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            f"image {path!r}: {reason} in {root}; add the file or correct image_root"
        ) from None
    try:
        _check_status(path, os.fstat(descriptor))
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"image {path!r}: {error.strerror}; replace it") from None
    finally:
        os.close(descriptor)
    return decode(content, path)


def decode(content: bytes, name: str = "image") -> Image.Image:
    """The image in ``content`` as RGB; ``name`` stands for it in errors.

    An image whose padded square would exceed 64 megapixels is reduced to that first, with a
    warning in the log.

    Raises:
        ImageError: another format, too large, or damaged.
    """
    if len(content) > MAX_BYTES:
        raise ImageError(f"image {name!r}: more than {MAX_BYTES:,} bytes; make it smaller")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            _check_size(name, width, height)
            image = image.convert("RGB")
    except ImageError:
        raise
    # Decoders fail on hostile bytes with whatever their parsing ran into (OSError, SyntaxError,
    # struct.error, ...): all of it means the same here.
    except Exception as error:
        raise ImageError(
            f"image {name!r}: not a readable {', '.join(FORMATS)} file "
            f"({type(error).__name__}: {error}); replace it"
        ) from None
    side = max(width, height)
    if side * side <= MAX_SQUARE_PIXELS:
        return image
    scale = MAX_SQUARE_PIXELS**0.5 / side
    reduced = (max(1, int(width * scale)), max(1, int(height * scale)))
    logger.warning("image %r: %dx%d reduced to %dx%d before padding", name, *image.size, *reduced)
    return image.resize(reduced, Image.Resampling.BICUBIC, reducing_gap=3.0)


# Folders hold thousands of images each, so resolving every folder once saves most system calls.
@functools.lru_cache(maxsize=65536)
def _real_directory(path: str) -> str:
    return os.path.realpath(path)


def _check_status(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"image {path!r}: not a regular file; give the path of an image")
    if status.st_size > MAX_BYTES:
        raise ImageError(
            f"image {path!r}: {status.st_size:,} bytes, more than {MAX_BYTES:,}; make it smaller"
        )
    if status.st_size == 0:
        raise ImageError(f"image {path!r}: the file is empty; fetch it again")


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"image {name!r}: {width}x{height} is more than {MAX_PIXELS:,} pixels; make it smaller"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"image {name!r}: {width}x{height} is longer than {MAX_ASPECT}:1; cut it into pieces"
        )


def default_root(path: str | os.PathLike[str], image_root: str | None) -> Path:
    """The image root of a data set: ``image_root``, else the folder of its file.

    Raises:
        ValueError: there is no such folder.
    """
    root = Path(image_root) if image_root is not None else Path(path).parent
    if not root.is_dir():
        raise ValueError(f"image_root {str(root)!r} of {path} is not a folder; correct image_root")
    return root
