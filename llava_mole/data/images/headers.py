"""What a few bytes of a hostile image could make Pillow do, looked at before Pillow sees the file.

Pillow bounds the pixels, not the metadata. An EXIF block of half a megabyte may point at the same
data twenty thousand times, a TIFF may list millions of strips for a picture of sixteen pixels, a
JPEG may be nothing but empty segments: gigabytes or minutes each. So directories are added up here
and reads are counted.
"""

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

# No photograph comes near these; the nastiest file within them costs seconds, not minutes.
MAX_SEGMENTS = 4096
MAX_HEADER = 8 * 2**20
MAX_HEADER_READS = 50_000
MAX_READS = 1_000_000
MAX_CONTENT = 256 * 2**20
MAX_TAG_VALUES = 2**18
MAX_TAG_BYTES = 64 * 2**20
MAX_TAGS = 65_535

# Scans times pixels.
MAX_SCANNED = 2_500_000_000

ORIENTATION = 0x0112
_TILE_WIDTH, _TILE_LENGTH, _ROWS_PER_STRIP = 322, 323, 278
# Directories inside a directory that Pillow reads whole: EXIF, GPS, interoperability.
_NESTED = (0x8769, 0x8825, 0xA005)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TYPE_BYTES |= {16: 8}
# Kept as one string of bytes; every other type becomes a Python object a value.
_OPAQUE = (1, 2, 7)
_POINTERS = {2: "H", 4: "L", 8: "Q"}
# JPEG markers that Pillow does not take a length after, and the zero that is no marker.
_BARE = bytes([0x00, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)])


class Unreasonable(ValueError):
    """The file asks for far more work or memory than its picture needs; the message says what."""


class Metered:
    """A file as Pillow reads it, until it has read too often or too much: first the header's share.

    Args:
        file: at its start.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close
        whole = file.read(4) in (b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        # WebP is read at once, and TIFF's tags may lie anywhere.
        self._reads, self._size = MAX_HEADER_READS, MAX_CONTENT if whole else MAX_HEADER
        file.seek(0)

    def allow_content(self) -> None:
        """Allows what decoding takes besides."""
        self._reads, self._size = MAX_READS, MAX_CONTENT

    def __repr__(self) -> str:
        # Pillow's errors quote it; an address would make every report of one file another.
        return "(content)"

    def read(self, size: int = -1) -> bytes:
        """As a file's.

        Raises:
            Unreasonable: the allowance is used up.
        """
        data = self._file.read(size)
        self._reads -= 1
        self._size -= len(data)
        if self._reads < 0 or self._size < 0:
            raise Unreasonable("far too much metadata for a picture; save it again without")
        return data


def check_header(file: BinaryIO | Metered, page: int = 0) -> None:
    """Adds up the metadata of a JPEG's segments and of a TIFF's directories up to ``page``.

    Reads from the start of ``file`` and returns there. Whether the file is valid is left to Pillow.

    Raises:
        Unreasonable: more than any picture has.
    """
    file.seek(0)
    magic = file.read(4)
    # Cut off: Pillow says so in its own words.
    with contextlib.suppress(struct.error):
        if magic[:3] == b"\xff\xd8\xff":
            check_exif(b"".join(_exif_segments(file)))
        elif magic[:2] in (b"II", b"MM"):
            _check_directories(file, page, nested=True)
    file.seek(0)


def check_exif(exif: bytes) -> None:
    """Adds up the first directory of an EXIF block, with or without its ``Exif\\0\\0``.

    Raises:
        Unreasonable: more than any picture has.
    """
    start = 0
    while exif.startswith(b"Exif\0\0", start):
        start += 6
        # Pillow takes them off one by one, copying the rest each time.
        if start > 600:
            raise Unreasonable("EXIF that begins again and again; save it again without metadata")
    exif = exif[start:]
    # Cut off: Pillow takes what is there.
    with contextlib.suppress(struct.error):
        _check_directories(io.BytesIO(exif), page=0, nested=False)


def _exif_segments(file: BinaryIO | Metered) -> Iterator[bytes]:
    """The EXIF of a JPEG in pieces; walks over junk and padding just as Pillow does."""
    file.seek(2)
    byte, segments = file.read(1), 0
    while byte:
        if byte != b"\xff":
            byte = file.read(1)
            continue
        segments += 1
        if segments > MAX_SEGMENTS or file.tell() > MAX_HEADER:
            raise Unreasonable(
                f"more than {MAX_SEGMENTS:,} segments or {MAX_HEADER:,} bytes before the picture; "
                "save it again without metadata"
            )
        marker = file.read(1)
        if marker == b"\xff":
            continue
        if marker == b"\xda":
            return
        if marker and marker not in _BARE:
            length = struct.unpack(">H", file.read(2))[0] - 2
            if marker == b"\xe1":
                data = file.read(max(0, length))
                if data.startswith(b"Exif\0\0"):
                    yield data[6:]
            elif length > 0:
                file.seek(length, io.SEEK_CUR)
        byte = file.read(1)


def _check_directories(file: BinaryIO | Metered, page: int, nested: bool) -> None:
    """Adds up the directories of a TIFF's pages up to ``page``, and those inside them."""
    file.seek(0)
    magic = file.read(4)
    order = {b"II": "<", b"MM": ">"}.get(magic[:2])
    if order is None:
        return
    directory = _Directory(file, order, big=43 in magic[2:])
    file.seek(8 if directory.big else 4)
    next_page = directory.number()
    for _ in range(page + 1):
        if next_page == 0:
            return
        pending, next_page = directory.add(next_page)
        # Interoperability sits inside EXIF; nothing goes deeper.
        for _ in range(4 if nested else 0):
            if pending:
                pending += directory.add(pending.pop())[0]


def decoding_bytes(image: Image.Image, content: bytes) -> int:
    """Memory that decoding ``image`` and converting it to RGB takes at most, besides ``content``.

    Raises:
        Unreasonable: a JPEG that goes over its picture again and again.
    """
    pixels = image.width * image.height
    # Pillow keeps three samples in four bytes.
    each = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    needed = pixels * (each + 4)
    if image.format == "WEBP":
        # Two canvases, the frame as bytes, and the image.
        return pixels * 16
    if image.format == "TIFF":
        # One strip or tile, of up to twice as many bits; or the image again while it is turned.
        return max(needed, pixels * 2 * each, (pixels + 2 * _block(image)) * each)
    if image.format in ("JPEG", "MPO"):
        scans = content.count(b"\xff\xda")
        if scans * pixels > MAX_SCANNED:
            raise Unreasonable(f"a JPEG of {scans:,} scans; save it again as a plain one")
        if scans > 1:
            # All coefficients wait, two bytes each, until the last scan has come.
            return max(needed, pixels * (each + 2 * len(image.getbands())))
    return needed


def _block(image: Image.Image) -> int:
    """Pixels of the largest piece that a TIFF is decoded in."""
    tags = image.tag_v2
    if _TILE_WIDTH in tags:
        return tags[_TILE_WIDTH] * tags[_TILE_LENGTH]
    return image.width * min(image.height, tags.get(_ROWS_PER_STRIP, image.height))


class _Directory:
    """Adds up directories of one file, any of which may lie about everything."""

    def __init__(self, file: BinaryIO | Metered, order: str, big: bool) -> None:
        self.file, self.order, self.big = file, order, big
        self.length = file.seek(0, io.SEEK_END)
        self.bytes = 0

    def number(self, kind: str = "") -> int:
        """The unsigned number that comes next; an offset if ``kind`` is not given."""
        form = self.order + (kind or ("Q" if self.big else "L"))
        return struct.unpack(form, self.file.read(struct.calcsize(form)))[0]

    def add(self, offset: int) -> tuple[list[int], int]:
        """Offsets of the directories within the one at ``offset``, and of the one after it.

        Raises:
            Unreasonable: with it, there are too many tags, values or bytes.
            struct.error: it is cut off.
        """
        # Seeking further than any file can be is an error of its own.
        self.file.seek(min(offset, self.length))
        tags = self.number("Q" if self.big else "H")
        if tags > MAX_TAGS:
            raise Unreasonable(f"more than {MAX_TAGS:,} tags; save it again without metadata")
        entry = struct.Struct(self.order + ("HHQ8s" if self.big else "HHL4s"))
        content, nested = self.file.read(entry.size * tags), []
        for place in range(0, len(content) - entry.size + 1, entry.size):
            tag, kind, count, value = entry.unpack_from(content, place)
            size = count * _TYPE_BYTES.get(kind, 0)
            if size > len(value):
                (start,) = struct.unpack_from(self.order + ("Q" if self.big else "L"), value)
                # Values beyond the end are never read, so a damaged count alone does no harm.
                if start + size <= self.length:
                    self._count(tag, kind, count, size)
            elif tag in _NESTED and count == 1 and (form := _POINTERS.get(size)):
                nested.append(struct.unpack_from(self.order + form, value)[0])
        return nested, self.number() if len(content) == entry.size * tags else 0

    def _count(self, tag: int, kind: int, count: int, size: int) -> None:
        self.bytes += size
        if self.bytes > MAX_TAG_BYTES or (kind not in _OPAQUE and count > MAX_TAG_VALUES):
            raise Unreasonable(
                f"tag {tag} has {count:,} values; save it again without metadata, and in larger "
                "strips or tiles"
            )
