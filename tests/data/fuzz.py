"""Damage to bytes, seeded: what the fuzz tests feed to the readers."""

import io
import os
import random
import struct
import warnings

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def count(default: int) -> int:
    """How many mutations to try: ``LLAVA_MOLE_FUZZ``, 10000 for the full run."""
    return int(os.environ.get("LLAVA_MOLE_FUZZ", default))


def peak_memory() -> int:
    """Most bytes that this process held; unlike ``ru_maxrss`` without what its parent held."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def seed_images() -> dict[str, bytes]:
    """Small good images of every format, mode and oddity that is read."""
    values = np.random.default_rng(0).integers(0, 256, (24, 36, 4), dtype=np.uint8)
    values[:, :18] //= 8
    rgba = Image.fromarray(values)
    rgb = rgba.convert("RGB")
    palette = rgb.quantize(32)
    grey16 = Image.fromarray(np.arange(864, dtype=np.uint16).reshape(24, 36) * 70)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker" * 9
    more = [rgb.transpose(Image.Transpose.ROTATE_180), rgb.convert("L").convert("RGB")]
    seeds = {
        "jpeg": _saved(rgb, "JPEG", exif=exif, comment=b"hello"),
        "jpeg progressive": _saved(rgb, "JPEG", progressive=True, restart_marker_blocks=1),
        "jpeg grey": _saved(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": _saved(rgb.convert("CMYK"), "JPEG"),
        "mpo": _saved(rgb, "MPO", save_all=True, append_images=more),
        "png": _saved(rgb, "PNG", exif=exif, icc_profile=b"profile" * 20),
        "png rgba": _saved(rgba, "PNG"),
        "png palette": _saved(palette, "PNG", transparency=b"\0\x80"),
        "png bilevel": _saved(rgb.convert("1"), "PNG"),
        "png la": _saved(rgba.convert("LA"), "PNG"),
        "png 16 bit": _saved(grey16, "PNG"),
        "apng": _saved(rgb, "PNG", save_all=True, append_images=more),
        "webp": _saved(rgb, "WEBP", exif=exif),
        "webp lossless": _saved(rgba, "WEBP", lossless=True),
        "webp animated": _saved(rgb, "WEBP", save_all=True, append_images=more),
        "gif": _saved(palette, "GIF", transparency=2, comment=b"hello"),
        "gif animated": _saved(rgb, "GIF", save_all=True, append_images=more),
        "bmp": _saved(rgb, "BMP"),
        "bmp palette": _saved(palette, "BMP"),
        "tiff pages": _saved(rgb, "TIFF", save_all=True, append_images=more),
        "tiff float": _saved(rgb.convert("F"), "TIFF"),
        "tiff 16 bit": _saved(grey16, "TIFF"),
        "tiff lab": _saved(rgb.convert("LAB"), "TIFF"),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        seeds[f"tiff {compression}"] = _saved(rgb, "TIFF", compression=compression)
    seeds["tiff group4"] = _saved(rgb.convert("1"), "TIFF", compression="group4")
    seeds["tiff cmyk"] = _saved(rgb.convert("CMYK"), "TIFF", tiffinfo={0x0112: 6})
    seeds["tiff big"] = _saved(rgb, "TIFF", big_tiff=True)
    return seeds


def _saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    # Copies: saving leaves its encoder's settings on an image, where another format trips on them.
    if "append_images" in options:
        options["append_images"] = [other.copy() for other in options["append_images"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.copy().save(buffer, format, **options)
    return buffer.getvalue()


def damaged(content: bytes, other: bytes, chooser: random.Random) -> bytes:
    """``content`` after one to three kinds of damage, some of it taken from ``other``."""
    data = bytearray(content)
    for _ in range(chooser.choice((1, 1, 1, 2, 3))):
        if data:
            chooser.choice(_DAMAGE)(data, other, chooser)
    return bytes(data)


def _flip(data: bytearray, other: bytes, chooser: random.Random) -> None:
    for _ in range(chooser.randint(1, 12)):
        data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)


def _header(data: bytearray, other: bytes, chooser: random.Random) -> None:
    for _ in range(chooser.randint(1, 6)):
        data[chooser.randrange(min(len(data), 64))] = chooser.randrange(256)


def _number(data: bytearray, other: bytes, chooser: random.Random) -> None:
    """A field becomes 0, huge, negative or just off: sizes, counts and offsets sit anywhere."""
    form = chooser.choice(("<H", ">H", "<L", ">L"))
    value = chooser.choice((0, 1, 2, 255, 256, 32767, 65535, 89_000, 2**31 - 1, 2**31, 2**32 - 1))
    packed = struct.pack(form, value % 2 ** (8 * struct.calcsize(form)))
    start = chooser.randrange(min(len(data), chooser.choice((64, 512, 10**6))))
    data[start : start + len(packed)] = packed


def _cut(data: bytearray, other: bytes, chooser: random.Random) -> None:
    del data[chooser.randrange(len(data)) :]


def _swap(data: bytearray, other: bytes, chooser: random.Random) -> None:
    size = chooser.randint(1, max(1, len(data) // 4))
    first, second = (chooser.randrange(len(data)) for _ in range(2))
    data[first : first + size], data[second : second + size] = (
        data[second : second + size],
        data[first : first + size],
    )


def _repeat(data: bytearray, other: bytes, chooser: random.Random) -> None:
    start, size = chooser.randrange(len(data)), chooser.randint(1, 200)
    data[start:start] = data[start : start + size] * chooser.randint(1, 50)


def _remove(data: bytearray, other: bytes, chooser: random.Random) -> None:
    start = chooser.randrange(len(data))
    del data[start : start + chooser.randint(1, 64)]


def _graft(data: bytearray, other: bytes, chooser: random.Random) -> None:
    """Part of another image, of this format or not, in place of what is here or between."""
    start = chooser.randrange(len(other))
    piece = other[start : start + chooser.randint(1, len(other))]
    place = chooser.randrange(len(data))
    data[place : place + chooser.choice((0, len(piece)))] = piece


def _tail(data: bytearray, other: bytes, chooser: random.Random) -> None:
    data += chooser.choice((other, chooser.randbytes(chooser.randint(1, 5000)), b"\0" * 999))


_DAMAGE = (_flip, _flip, _header, _header, _number, _number, _cut, _swap, _repeat, _remove, _graft)
_DAMAGE += (_tail,)
