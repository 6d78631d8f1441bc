"""Small files that ask for gigabytes or minutes: refused soon, in a process that may take 1 GiB.

Each was tried against Pillow 12.3 or 13.0 alone, which took what its comment says.
"""

import io
import json
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from llava_mole.data.images.headers import Unreasonable, check_exif
from llava_mole.data.images.read import ImageError, decode, inspect
from tests.data.fuzz import peak_memory

SECONDS = 5
SIDE = 7990


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def small(format: str) -> bytes:
    return saved(Image.new("P" if format == "GIF" else "RGB", (16, 16)), format)


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def exif_directory() -> bytes:
    """20,000 tags that all point at the same 250 kB: 4.8 GB in Pillow 12.3."""
    tags = b"".join(struct.pack("<HHLL", 1000 + n, 7, 250_000, 8) for n in range(20_000))
    directory = b"II*\0" + struct.pack("<LH", 8, 20_000) + tags + bytes(4)
    return directory + bytes(500_000 - len(directory))


def jpeg_with(segments: bytes) -> bytes:
    # Without the JFIF segment, so that Pillow looks for the resolution in the EXIF.
    return b"\xff\xd8" + segments + small("JPEG")[20:]


def exif_bomb() -> bytes:
    exif = exif_directory()
    pieces = [exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    return jpeg_with(b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces))


def tiff(*tags: tuple[int, int, int, int], tail: bytes = b"", big: bool = False) -> bytes:
    """A TIFF of one directory; ``tail`` follows it, at ``8 + 2 + 12 * len(tags) + 4``."""
    content = b"II*\0" + struct.pack("<LH", 8, len(tags))
    content += b"".join(struct.pack("<HHLL", *tag) for tag in sorted(tags))
    return content + bytes(4) + tail


def plain_tiff_tags(width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
    ]


def strips_bomb() -> bytes:
    """16 x 16 pixels in four million strips: 33 s and 1 GiB."""
    number, start = 4_000_000, 8 + 2 + 12 * 9 + 4
    tags = [*plain_tiff_tags(16, 16), (273, 4, number, start), (278, 4, 1, 1)]
    return tiff(*tags, (279, 4, number, start), tail=struct.pack("<L", 200) * number)


def nested_bomb() -> bytes:
    """The EXIF directory of a TIFF holds millions of numbers, each a Python object."""
    number, start = 8_000_000, 8 + 2 + 12 * 9 + 4
    nested = struct.pack("<HHHLLL", 1, 4000, 4, number, start + 18, 0)
    tags = [*plain_tiff_tags(16, 16), (273, 4, 1, start), (278, 4, 1, 16), (0x8769, 4, 1, start)]
    return tiff(*tags, tail=nested + bytes(4 * number))


def tile_bomb() -> bytes:
    """100 x 100 pixels in one tile of 30,000 x 30,000."""
    data = zlib.compress(bytes(10_000))
    start = 8 + 2 + 12 * 9 + 4
    tags = [tag for tag in plain_tiff_tags(100, 100) if tag[0] != 259] + [(259, 3, 1, 8)]
    tags += [(322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, start)]
    return tiff(*tags[:9], tail=data)


def chunks_bomb() -> bytes:
    """Five million empty chunks: 23 s."""
    content = small("PNG")
    chunk = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return content[:33] + chunk * 5_000_000 + content[33:]


def text_bomb() -> bytes:
    """A hundred texts of 10 MB each, packed to 10 kB each."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    content = small("PNG")
    text = chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(10_000_000)))
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(200_000_000)))
    return content[:33] + profile + text * 100 + content[33:]


def scans_bomb() -> bytes:
    """A progressive JPEG of 16 megapixels whose last scan comes 2,000 times more: minutes."""
    content = saved(Image.new("L", (4000, 4000)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * 2000 + content[-2:]


BOMBS = {
    "exif": exif_bomb,
    # 2.4 GB: a list of sixteen million empty segments.
    "segments": lambda: jpeg_with(segment(0xE5, b"") * (15 * 2**20)),
    # Minutes: the EXIF is joined anew with every segment.
    "exif joined": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(500)) * 100_000),
    "exif prefix": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" * 10_000) * 100),
    "junk": lambda: b"\xff\xd8\xff\xe5\0\2" + bytes(60 * 2**20),
    "strips": strips_bomb,
    "nested": nested_bomb,
    "tile": tile_bomb,
    "chunks": chunks_bomb,
    "texts": text_bomb,
    "comment": lambda: (
        small("GIF")[:13]
        + b"\x21\xfe"
        + (b"\xff" + bytes(255)) * 200_000
        + b"\0"
        + small("GIF")[13:]
    ),
    "scans": scans_bomb,
    # The frame's canvas, twice, beside the image: 16 bytes a pixel.
    "webp": lambda: saved(Image.new("RGB", (9000, 9000)), "WEBP", quality=1, method=0),
    "bmp": lambda: (
        b"BM" + struct.pack("<LLLLLLHHLLLLLL", 70, 0, 54, 40, 9000, 9000, 1, 32, *[0] * 6)
    ),
}
# As large as is read at all, of the two kinds that take the most: they must fit.
LARGE = {
    "jpeg": lambda: saved(Image.new("RGB", (SIDE, SIDE)), "JPEG", progressive=True, subsampling=0),
    "webp": lambda: saved(Image.new("RGB", (6700, 6700)), "WEBP", quality=1, method=0),
}


def measured(path: str) -> dict:
    """Runs in a process of its own: reads a file and tells what became of it."""
    with open(path, "rb") as file:
        content = file.read()
    begin, outcome = time.process_time(), "read"
    try:
        inspect(content, ".")
        decode(content)
    except ImageError as error:
        outcome = str(error)
    return {"outcome": outcome, "seconds": time.process_time() - begin, "peak": peak_memory()}


def in_a_process(content: bytes, tmp_path) -> dict:
    (tmp_path / "bomb").write_bytes(content)
    code = (
        "import json, tests.data.images.test_image_bombs as t;"
        f"print(json.dumps(t.measured({str(tmp_path / 'bomb')!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    print(result)
    assert result["peak"] < 2**30
    assert result["seconds"] < SECONDS
    return result


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name, tmp_path):
    assert in_a_process(BOMBS[name](), tmp_path)["outcome"].startswith("image '")


@pytest.mark.parametrize("name", LARGE)
def test_the_largest_images_fit(name, tmp_path):
    assert in_a_process(LARGE[name](), tmp_path)["outcome"] == "read"


def test_exif_alone():
    with pytest.raises(Unreasonable, match="values"):
        check_exif(exif_directory())
    with pytest.raises(Unreasonable, match="again and again"):
        check_exif(b"Exif\0\0" * 1000)
    # Damage that reads nothing is no bomb: counts far beyond the end, a block cut off, no EXIF.
    exif = Image.Exif()
    exif[0x010E] = "description" * 20
    block = bytearray(exif.tobytes())
    for damaged in (bytes(block[:20]), b"", b"Exif\0\0", b"nonsense" * 9):
        check_exif(damaged)
    at = block.index(struct.pack(">H", 0x010E)) + 4
    block[at : at + 4] = b"\x7f\xff\xff\xff"
    check_exif(bytes(block))


def test_ordinary_metadata_is_no_bomb():
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    profile = bytes(1_000_000)
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        content = saved(image, format, exif=exif, icc_profile=profile)
        assert decode(content).size == (64, 64)
    strips = saved(image, "TIFF", compression="tiff_lzw", strip_size=1)
    assert decode(strips).tobytes() == image.tobytes()
