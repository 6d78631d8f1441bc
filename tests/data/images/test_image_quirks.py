"""Odd but real images: what is read must equal ``Image.open(...).convert("RGB")``, and be told."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from llava_mole.data.images import read as images
from llava_mole.data.images.read import ImageError, check_exists, decode, inspect, load_image


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB", size=(40, 30)) -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(values)
    return image.convert("RGB").convert(mode) if mode in ("P", "CMYK") else image.convert(mode)


def sixteen_bit_png(colour_type: int, samples: int) -> bytes:
    """A PNG of 16-bit samples, which Pillow can't write itself."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    row = b"\0" + np.arange(0, 65536, 65536 // (8 * samples), dtype=">u2")[: 8 * samples].tobytes()
    header = struct.pack(">IIBBBBB", 8, 4, 16, colour_type, 0, 0, 0)
    data = zlib.compress(row * 4)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*each) for each in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    )


def palette(**options) -> Image.Image:
    image = picture("RGB").quantize(16)
    image.info.update(options)
    return image


def orientation(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


GREY16 = Image.fromarray(np.arange(0, 1200, dtype=np.uint16).reshape(30, 40))
FLOATS = Image.fromarray(np.linspace(-50, 400, 1200, dtype=np.float32).reshape(30, 40))
INTEGERS = Image.fromarray(np.arange(-100, 1100, dtype=np.int32).reshape(30, 40))

# name: (content, keys of its notes)
QUIRKS = {
    "plain.jpg": (saved(picture(), "JPEG"), []),
    "cmyk.jpg": (saved(picture("CMYK"), "JPEG"), ["cmyk"]),
    "cmyk.tiff": (saved(picture("CMYK"), "TIFF"), ["cmyk"]),
    "grey.png": (saved(picture("L"), "PNG"), []),
    "bilevel.tif": (saved(picture("1"), "TIFF", compression="group4"), []),
    "rgba.png": (saved(picture("RGBA"), "PNG"), ["alpha"]),
    "rgba.webp": (saved(picture("RGBA"), "WEBP", lossless=True), ["alpha"]),
    "la.png": (saved(picture("LA"), "PNG"), ["alpha"]),
    "palette.png": (saved(palette(), "PNG"), []),
    "palette_bytes.png": (
        saved(palette(), "PNG", transparency=b"\x00\x80"),
        ["palette_transparency"],
    ),
    "palette.gif": (saved(palette(), "GIF", transparency=3), ["palette_transparency"]),
    "key.png": (saved(picture(), "PNG", transparency=(1, 2, 3)), ["transparent_colour"]),
    "grey16.png": (saved(GREY16, "PNG"), ["16_bit"]),
    "grey16.tiff": (saved(GREY16, "TIFF"), ["16_bit"]),
    "rgb16.png": (sixteen_bit_png(2, 3), []),
    "rgba16.png": (sixteen_bit_png(6, 4), ["alpha"]),
    "integers.tiff": (saved(INTEGERS, "TIFF"), ["16_bit"]),
    "floats.tiff": (saved(FLOATS, "TIFF"), ["float"]),
    "ycbcr.tiff": (saved(picture("YCbCr"), "TIFF"), ["colour_space"]),
    "lab.tiff": (saved(picture("LAB"), "TIFF"), ["colour_space"]),
    "turned.jpg": (saved(picture(), "JPEG", exif=orientation(6)), ["orientation"]),
    "turned.png": (saved(picture(), "PNG", exif=orientation(3)), ["orientation"]),
    "turned.webp": (saved(picture(), "WEBP", exif=orientation(8)), ["orientation"]),
    "upright.jpg": (saved(picture(), "JPEG", exif=orientation(1)), []),
    "nonsense.jpg": (saved(picture(), "JPEG", exif=orientation(77)), []),
    "a_gif.jpg": (saved(picture("P"), "GIF"), ["misnamed"]),
    "a_jpeg.PNG": (saved(picture(), "JPEG"), ["misnamed"]),
    "no_suffix": (saved(picture(), "BMP"), []),
    "other.suffix": (saved(picture(), "BMP"), []),
    "animated.gif": (
        saved(palette(), "GIF", save_all=True, append_images=[picture("P", (40, 30))]),
        ["frames"],
    ),
    "animated.webp": (
        saved(picture(), "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
        ["frames"],
    ),
    "animated.png": (
        saved(picture(), "PNG", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
        ["frames"],
    ),
    "progressive.jpg": (saved(picture(), "JPEG", progressive=True), []),
    "tall.png": (saved(Image.new("L", (200, 16_000), 7), "PNG"), ["reduced"]),
}


@pytest.mark.parametrize("name", QUIRKS)
def test_pixels_are_llavas_and_the_rest_is_told(name, tmp_path):
    content, keys = QUIRKS[name]
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = Image.open(io.BytesIO(content)).convert("RGB")
    with warnings.catch_warnings():
        # Nothing of Pillow's may reach the user, once an image and epoch.
        warnings.simplefilter("error")
        read = [load_image(name, tmp_path), load_image(content, tmp_path)]
        notes = inspect(name, tmp_path)
        embedded = inspect(content, tmp_path)
    if "reduced" not in keys:
        for image in read:
            assert (image.mode, image.size) == ("RGB", expected.size)
            assert image.tobytes() == expected.tobytes()
    assert [note.key for note in notes] == keys
    # Without a name it can't be misnamed.
    assert [note.key for note in embedded] == [key for key in keys if key != "misnamed"]
    assert all(note.text for note in notes)


def test_shades_above_eight_bits_become_white_and_the_note_says_so():
    content = saved(GREY16, "PNG")
    values = np.asarray(decode(content))[..., 0].ravel()
    assert values[:256].tolist() == list(range(256))
    assert (values[256:] == 255).all()
    (note,) = inspect(content, ".")
    assert "save it with 8 bits" in note.text


def test_a_tiffs_own_orientation_is_followed_as_pillow_does(tmp_path):
    content = saved(picture(), "TIFF", tiffinfo={0x0112: 6})
    assert decode(content).size == (30, 40)
    assert inspect(content, tmp_path) == ()


def test_reduction_is_told_with_its_sizes(tmp_path):
    (note,) = inspect(QUIRKS["tall.png"][0], tmp_path)
    assert note.text == "reduced from 200x16000 to 100x8000"
    assert decode(QUIRKS["tall.png"][0]).size == (100, 8000)


@pytest.fixture
def scans(tmp_path):
    """A TIFF of three pages, each of its own colour and size."""
    pages = [Image.new("RGB", (10 + page, 8), (80 * page, 0, 0)) for page in range(3)]
    (tmp_path / "a").mkdir()
    for name in ("x.tiff", "y.TIF"):
        (tmp_path / "a" / name).write_bytes(
            saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
        )
    return tmp_path


@pytest.mark.parametrize("file", ["a/x.tiff", "a/y.TIF"])
def test_tiff_pages_count_from_zero_as_ureaders_reader_does(scans, file):
    # UReader seeks to the number in the name, and Pillow's first page is 0.
    for page in range(3):
        image = load_image(f"{file}.{page}", scans)
        assert (image.size, image.getpixel((0, 0))) == ((10 + page, 8), (80 * page, 0, 0))
        check_exists(f"{file}.{page}", scans)
        assert inspect(f"{file}.{page}", scans) == ()
    assert load_image(file, scans).size == (10, 8)
    for read in (load_image, inspect):
        with pytest.raises(ImageError, match=r"a TIFF without page 3, counted from 0"):
            read(f"{file}.3", scans)


def test_a_file_of_that_very_name_comes_first(scans):
    (scans / "a/x.tiff.2").write_bytes(saved(Image.new("RGB", (5, 5)), "PNG"))
    assert load_image("a/x.tiff.2", scans).size == (5, 5)
    assert load_image("a/x.tiff.1", scans).size == (11, 8)


@pytest.mark.parametrize("name", ["a/x.tiff.x", "a/x.tiff.", "a/x.tiff.12345", "a/z.tiff.1", "x.2"])
def test_other_endings_are_no_pages(scans, name):
    for read in (load_image, check_exists, inspect):
        with pytest.raises(ImageError, match="No such file"):
            read(name, scans)


def test_pages_of_what_is_no_tiff(scans):
    (scans / "a/photo.tiff").write_bytes(saved(picture(), "JPEG"))
    assert load_image("a/photo.tiff.0", scans).size == (40, 30)
    with pytest.raises(ImageError, match="a JPEG without page 1"):
        load_image("a/photo.tiff.1", scans)


def test_pages_stay_inside_the_root(scans):
    (scans / "outside.tiff").write_bytes((scans / "a/x.tiff").read_bytes())
    (scans / "a/link.tiff").symlink_to(scans / "outside.tiff")
    for path in ("../outside.tiff.1", "link.tiff.1"):
        with pytest.raises(ImageError, match="image_root"):
            load_image(path, scans / "a")


def test_caps_hold_for_every_page(tmp_path):
    pages = [Image.new("1", size) for size in ((10, 10), (9, 1000), (30_000, 3000))]
    content = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="group4")
    (tmp_path / "x.tiff").write_bytes(content)
    assert load_image("x.tiff", tmp_path).size == (10, 10)
    for read in (load_image, inspect):
        with pytest.raises(ImageError, match="9x1000 is longer than 100:1"):
            read("x.tiff.1", tmp_path)
        with pytest.raises(ImageError, match="30000x3000 is more than"):
            read("x.tiff.2", tmp_path)


def test_encoded_images_are_capped_too(monkeypatch):
    content = saved(picture(), "PNG")
    monkeypatch.setattr(images, "MAX_BYTES", len(content) - 1)
    for read in (load_image, check_exists):
        with pytest.raises(ImageError, match="bytes in the record"):
            read(content, ".")
        with pytest.raises(ImageError, match="is empty"):
            read(b"", ".")


def test_truncated_jpegs_are_refused_as_pillow_does():
    content = saved(picture(size=(200, 200)), "JPEG")
    for end in (len(content) // 2, len(content) - 200):
        with pytest.raises(ImageError, match="truncated"):
            decode(content[:end], "cut.jpg")


def test_inspect_reads_only_the_header(tmp_path, monkeypatch):
    content = saved(picture(size=(500, 500)), "JPEG", exif=orientation(6))
    (tmp_path / "a.jpg").write_bytes(content[:2000])
    assert [note.key for note in inspect("a.jpg", tmp_path)] == ["orientation"]
    with pytest.raises(ImageError):
        load_image("a.jpg", tmp_path)


def test_a_damaged_second_frame_does_not_spoil_the_first():
    content = QUIRKS["animated.gif"][0]
    assert inspect(content, ".")
    for end in range(len(content) // 2, len(content), 7):
        # The header of the second frame is cut in one of these; inspecting looks for it.
        try:
            decode(content[:end])
        except ImageError:
            continue
        inspect(content[:end], ".")
