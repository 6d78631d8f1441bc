import io
import os
import random

import numpy as np
import pytest
from PIL import Image

from llava_mole.data.images import read as images
from llava_mole.data.images.read import ImageError, check_exists, decode, load_image
from tests import tiny
from tests.data.helpers import expand2square


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (9, 5), (1, 2, 3)).save(folder / "sub/a.png")
    Image.new("RGB", (9, 5)).save(tmp_path / "outside.png")
    return folder


def test_reads_below_the_root(root):
    image = load_image("sub/a.png", root)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (9, 5), (1, 2, 3))
    check_exists("sub/a.png", root)


@pytest.mark.parametrize(
    "path",
    [
        "../outside.png",
        "sub/../../outside.png",
        "sub\\..\\..\\outside.png",
        "/etc/passwd",
        "~/a.png",
        "a\0.png",
        "http://localhost/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "link.png",
        "linked/outside.png",
        "fifo",
        "sub",
        "",
        "missing.png",
        "x" * 300,
        "empty.png",
    ],
)
@pytest.mark.parametrize("read", [load_image, check_exists])
def test_refused_paths(root, tmp_path, path, read):
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "fifo")
    (root / "empty.png").touch()
    with pytest.raises(ImageError, match="image "):
        read(path, root)


def test_devices_are_refused():
    for read in (load_image, check_exists):
        with pytest.raises(ImageError, match="not a regular file"):
            read("null", "/dev")


def test_links_inside_the_root_and_a_linked_root_are_fine(root, tmp_path):
    (root / "again.png").symlink_to(root / "sub/a.png")
    (tmp_path / "alias").symlink_to(root)
    assert load_image("again.png", tmp_path / "alias").size == (9, 5)


def _bytes(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats_by_content(root, format):
    # The name lies, as LLaVA's GIFs named .jpg do.
    (root / "a.jpg").write_bytes(_bytes(Image.new("RGB", (8, 6), (200, 10, 10)), format))
    assert load_image("a.jpg", root).size == (8, 6)


@pytest.mark.parametrize("format", ["PPM", "ICO", "PDF", "EPS", "TGA"])
def test_other_formats_are_refused(format):
    with pytest.raises(ImageError, match="not a readable"):
        decode(_bytes(Image.new("RGB", (16, 16)), format))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_modes_become_rgb_as_llava_does(mode):
    format = "TIFF" if mode == "CMYK" else "PNG"
    content = _bytes(Image.linear_gradient("L").convert("RGB").convert(mode), format)
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    assert decode(content).tobytes() == expected.tobytes()


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(_bytes(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).size == (8, 4)


@pytest.mark.filterwarnings("ignore")
def test_truncated_and_mutated_images_never_crash():
    chooser = random.Random(0)
    picture = Image.effect_noise((40, 30), 80).convert("RGB")
    modes, reasons = set(), []
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        good = _bytes(picture, format)
        with pytest.raises(ImageError):
            decode(good[: len(good) // 2])
        for _ in range(100):
            bad = bytearray(good)
            for _ in range(chooser.randint(1, 8)):
                bad[chooser.randrange(min(len(bad), 400))] = chooser.randrange(256)
            try:
                modes.add(decode(bytes(bad)).mode)
            except ImageError as error:
                reasons.append(str(error))
    assert modes == {"RGB"}
    assert len(reasons) > 100
    assert all(reason.startswith("image 'image': ") for reason in reasons)


@pytest.mark.filterwarnings("ignore")
def test_caps_come_before_decoding(monkeypatch):
    def refuse(self, *args, **kwargs):
        raise AssertionError("decoded before its size was checked")

    huge = _bytes(Image.new("1", (10_000, 9_000)), "PNG")
    strip = _bytes(Image.new("1", (10_100, 100)), "PNG")
    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(ImageError, match="10000x9000 is more than"):
        decode(huge)
    with pytest.raises(ImageError, match="longer than 100:1"):
        decode(strip)
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match="bytes, more than 10;"):
        decode(strip)


def test_bytes_are_capped_on_disk(root, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    for read in (load_image, check_exists):
        with pytest.raises(ImageError, match="more than 10"):
            read("sub/a.png", root)


def test_images_of_a_huge_square_are_reduced_and_reported(caplog):
    caplog.set_level("INFO")
    content = _bytes(Image.new("L", (200, 16_000)), "PNG")
    image = decode(content, "page.png")
    assert image.size == (100, 8000)
    assert "page.png" in caplog.text
    assert "200x16000 reduced to 100x8000" in caplog.text
    caplog.clear()
    assert decode(_bytes(Image.new("L", (200, 8000)), "PNG")).size == (200, 8000)
    assert not caplog.text


def test_expand2square_offsets():
    image = Image.new("RGB", (640, 427), (9, 9, 9))
    square = np.asarray(expand2square(image, (122, 116, 104)))
    assert square.shape == (640, 640, 3)
    assert (square[105] == (122, 116, 104)).all()
    assert (square[106] == 9).all()
    assert (square[106 + 427] == (122, 116, 104)).all()
    tall = np.asarray(expand2square(Image.new("RGB", (2, 5), (9, 9, 9)), (0, 0, 0)))
    assert (tall[:, 1:3] == 9).all()
    assert not tall[:, 0].any()
    assert expand2square(tall_square := Image.new("RGB", (4, 4)), (0, 0, 0)) is tall_square


def test_the_processor_pads_as_expand2square_does():
    processor = tiny.tiny_processor().image_processor
    image = Image.effect_noise((50, 31), 90).convert("RGB")
    background = tuple(int(255 * mean) for mean in processor.image_mean)
    padded = processor(expand2square(image, background), return_tensors="pt")["pixel_values"]
    direct = processor(image, return_tensors="pt")["pixel_values"]
    assert padded.equal(direct)


def test_an_image_beyond_pillows_own_limit_is_too_large_not_corrupt():
    content = io.BytesIO()
    Image.new("1", (14000, 14000)).save(content, "PNG")
    with pytest.raises(ImageError, match=r"more than .* pixels; make it smaller"):
        images.decode(content.getvalue())
