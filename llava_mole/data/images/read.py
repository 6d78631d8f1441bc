"""Images that may be wrong or hostile to RGB images.

A path is resolved inside the image root and nowhere else; what is there must be a regular file of
one of six formats, recognised by content; its size, metadata, pixels and aspect are checked before
a single pixel is decoded. Colours are read as LLaVA does it: first frame, ``convert("RGB")``, no
rotation by EXIF.

``a/x.tiff.2`` is a page of the file ``a/x.tiff``, where no file has that very name. Pages count
from 0, as UReader's own reader counts them, so this is the third.
"""

import contextlib
import functools
import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from llava_mole.data.images.headers import Metered, Unreasonable, check_header, decoding_bytes
from llava_mole.data.images.notes import Note, notes_of

logger = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_BYTES = 64 * 2**20
# Pillow's own limit against decompression bombs.
MAX_PIXELS = 89_478_485
# What decoding may take, so that a process stays below 1 GiB whatever the file.
MAX_MEMORY = 704 * 2**20
MAX_ASPECT = 100
# LLaVA pads to a square: a 60000 x 1000 strip would become 10.8 GB. Larger ones are reduced first.
MAX_SQUARE_PIXELS = 64_000_000

_PAGE = re.compile(r"(.+\.tiff?)\.([0-9]{1,4})", re.IGNORECASE | re.DOTALL)


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


def locate(path: str, root: str | os.PathLike[str]) -> tuple[str, int | None]:
    """Where the file of ``path`` is, and the page that ``path`` names in it.

    Raises:
        ImageError: there is no regular file of allowed size inside ``root``.
    """
    location, page = resolve(path, root), None
    try:
        try:
            status = os.stat(location)
        except FileNotFoundError:
            named = _PAGE.fullmatch(path)
            if named is None:
                raise
            location, page = resolve(named[1], root), int(named[2])
            status = os.stat(location)
    except (OSError, ValueError) as error:
        raise _unopened(path, root, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"image {path!r}: not a regular file; give the path of an image")
    _check_bytes(path, status.st_size)
    return location, page


def check_exists(image: str | bytes, root: str | os.PathLike[str]) -> None:
    """Checks by one stat that ``image`` is a regular file of allowed size inside ``root``.

    Of an encoded image only the size is looked at, and of a TIFF's page only the file.

    Raises:
        ImageError: it is not.
    """
    if isinstance(image, bytes):
        _check_bytes(_called(image), len(image))
    else:
        locate(image, root)


def load_image(image: str | bytes, root: str | os.PathLike[str]) -> Image.Image:
    """The image as RGB.

    Args:
        image: path below ``root``, or the encoded image itself.
        root: the only folder that is read from.

    Raises:
        ImageError: outside the root, missing, not a regular file, another format, no such page,
            too large in bytes, metadata, pixels or aspect, or its content is damaged.
    """
    if isinstance(image, bytes):
        return decode(image, _called(image))
    with _file(image, root) as (file, page):
        content = file.read(MAX_BYTES + 1)
    return decode(content, image, page)


def inspect(image: str | bytes, root: str | os.PathLike[str]) -> tuple[Note, ...]:
    """What `load_image` would change about the image, from its header alone.

    Raises:
        ImageError: the header shows that it can't be loaded. Damage further on is not seen.
    """
    if isinstance(image, bytes):
        with _opened(io.BytesIO(image), _called(image), 0) as opened:
            return notes_of(opened, "", _reduced(opened.size))
    with _file(image, root) as (file, page), _opened(file, image, page) as opened:
        path = image if page is None else os.path.splitext(image)[0]
        return notes_of(opened, path, _reduced(opened.size))


def decode(content: bytes, name: str = "image", page: int | None = None) -> Image.Image:
    """The image in ``content`` as RGB.

    An image whose padded square would exceed 64 megapixels is reduced to that first.

    Args:
        content: the encoded image.
        name: stands for it in errors.
        page: of a TIFF, from 0.

    Raises:
        ImageError: another format, no such page, too large, or damaged.
    """
    _check_bytes(name, len(content))
    with _opened(io.BytesIO(content), name, page) as opened:
        needed = decoding_bytes(opened, content)
        if needed > MAX_MEMORY:
            raise Unreasonable(
                f"{opened.width}x{opened.height} of this kind takes {needed >> 20:,} MiB to "
                f"decode, more than {MAX_MEMORY >> 20:,}; make it smaller"
            )
        opened.load()
        # Not converted where it is RGB: that would only copy it.
        image = opened if opened.mode == "RGB" else opened.convert("RGB")
    if (size := _reduced(image.size)) is None:
        return image
    logger.info("image %r: %dx%d reduced to %dx%d before padding", name, *image.size, *size)
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


@contextlib.contextmanager
def _file(path: str, root: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int | None]]:
    """The file of ``path``, open, and the page that ``path`` names in it."""
    location, page = locate(path, root)
    try:
        # Non-blocking: opening a FIFO nobody writes to would hang before it could be refused.
        descriptor = os.open(location, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise _unopened(path, root, error) from None
    with open(descriptor, "rb") as file:
        # Again, now of what is open: the file may have been replaced in between.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ImageError(f"image {path!r}: not a regular file; give the path of an image")
        try:
            yield file, page
        except OSError as error:
            raise ImageError(f"image {path!r}: {error.strerror}; replace it") from None


@contextlib.contextmanager
def _opened(file: BinaryIO, name: str, page: int | None) -> Iterator[Image.Image]:
    """The image in ``file``, checked but not decoded; whatever decoding it raises is an ImageError.

    Pillow's warnings are about what is checked here anyway, and come once for every bad image.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            metered = Metered(file)
            check_header(metered, page or 0)
            with Image.open(metered, formats=FORMATS) as image:
                _go_to(image, name, page)
                _check_size(name, *image.size)
                metered.allow_content()
                yield image
    except ImageError:
        raise
    except Unreasonable as error:
        raise ImageError(f"image {name!r}: {error}") from None
    except Image.DecompressionBombError:
        # Raised while the header is read, before the size can be looked at here.
        raise ImageError(
            f"image {name!r}: more than {MAX_PIXELS:,} pixels; make it smaller"
        ) from None
    # Decoders fail on hostile bytes with whatever their parsing ran into (OSError, SyntaxError,
    # struct.error, ...): all of it means the same here.
    except Exception as error:
        raise ImageError(
            f"image {name!r}: not a readable {', '.join(FORMATS)} file "
            f"({type(error).__name__}: {str(error)[:200]}); replace it"
        ) from None


def _go_to(image: Image.Image, name: str, page: int | None) -> None:
    try:
        if page and image.format != "TIFF":
            raise EOFError
        image.seek(page or 0)
    except EOFError:
        raise ImageError(
            f"image {name!r}: a {image.format} without page {page}, counted from 0; correct the "
            "number or replace the file"
        ) from None


def _reduced(size: tuple[int, int]) -> tuple[int, int] | None:
    """The size that an image is reduced to before it is padded; None leaves it as it is."""
    side = max(size)
    if side * side <= MAX_SQUARE_PIXELS:
        return None
    scale = MAX_SQUARE_PIXELS**0.5 / side
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _called(image: bytes) -> str:
    return f"{len(image):,} bytes in the record"


def _unopened(path: str, root: str | os.PathLike[str], error: Exception) -> ImageError:
    reason = getattr(error, "strerror", None) or error
    return ImageError(f"image {path!r}: {reason} in {root}; add the file or correct image_root")


# Folders hold thousands of images each, so resolving every folder once saves most system calls.
@functools.lru_cache(maxsize=65536)
def _real_directory(path: str) -> str:
    return os.path.realpath(path)


def _check_bytes(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise ImageError(
            f"image {name!r}: {size:,} bytes, more than {MAX_BYTES:,}; make it smaller"
        )
    if size == 0:
        raise ImageError(f"image {name!r}: the file is empty; fetch it again")


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
