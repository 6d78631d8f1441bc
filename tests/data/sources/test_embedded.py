import base64

import pytest

from llava_mole.data.sources import embedded
from tests.data.sources.published import b64, picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_there_and_back(format):
    data = picture(7, 5, format=format)
    assert embedded.decode(b64(data)) == data
    assert embedded.looks_embedded(b64(data))


def test_what_is_tolerated():
    data = picture(40, 30)
    text = b64(data)
    lines = "\r\n".join(text[k : k + 60] for k in range(0, len(text), 60)) + "\n"
    assert embedded.decode(lines) == data
    assert embedded.decode(f"DATA:image/jpeg;charset=utf-8;base64,{text}") == data
    assert embedded.decode(base64.urlsafe_b64encode(data).decode()) == data


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("data:image/png,raw", "data URL without"),
        ("a b c é", "not base64"),
        (b64(picture(4, 4))[:-1], "not base64"),
        (b64(picture(4, 4)) + "=", "not base64"),
        (b64(picture(4, 4)) + "AAAA!", "not base64"),
        (b64(b"<html>not an image</html>"), "not of a JPEG, PNG"),
        ("data:" + ";" * 100_000, "data URL without"),
    ],
)
def test_what_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        embedded.decode(text)


def test_the_cap_holds_before_and_after_decoding(monkeypatch):
    data = picture(64, 64)
    monkeypatch.setattr(embedded, "MAX_BYTES", len(data))
    assert embedded.decode(b64(data)) == data
    monkeypatch.setattr(embedded, "MAX_BYTES", len(data) - 1)
    with pytest.raises(ValueError, match="bytes; at most"):
        embedded.decode(b64(data))
    with pytest.raises(ValueError, match="characters of base64; at most"):
        embedded.decode(" " * (2 * len(data)) + b64(data))


@pytest.mark.parametrize(
    "path",
    [
        "a/b.png",
        "DUE_Benchmark/DocVQA/pngs/rnbx0223_193.png",
        "a/x.tiff.2",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "images/train/aVeryLongFolderNameWithoutDots",
        "ab",
        "",
    ],
)
def test_a_path_is_no_image(path):
    assert not embedded.looks_embedded(path)
