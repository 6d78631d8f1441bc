"""The page holds hostile data and does nothing with it; it can be read back whole."""

import base64
import hashlib
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from llava_mole.analysis import sample, sample_page, sample_text
from tests import tiny
from tests.analysis import helpers

VOID = {"meta", "img", "br", "rect"}


class Parsed(html.parser.HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.open, self.text, self.style = [], [], [], "", ""
        self.spans = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "span" and dict(attributes).get("title"):
            self.spans.append((dict(attributes)["class"], dict(attributes)["title"]))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["style"]:
            self.style += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    helpers.make(folder)
    records = helpers.opened(folder / "set.jsonl", folder / "cache")
    encoder = helpers.encoder(max_length=900)
    processor = tiny.tiny_processor().image_processor
    return [
        *(sample.look(records, row, encoder, processor) for row in range(len(records))),
        *map(sample.look_at_problem, records.problems),
    ]


def test_the_page_can_run_and_fetch_nothing(views):
    for view in views:
        page = Parsed(sample_page.page(view))
        assert not set(page.tags) & {"script", "link", "iframe", "object", "form", "a", "base"}
        for tag, name, value in page.attributes:
            assert not name.startswith("on")
            assert name != "style"
            assert name not in ("href", "srcset", "action")
            assert name != "src" or value.startswith("data:image/png;base64,"), tag


def test_the_policy_admits_this_style_sheet_alone(views):
    page = Parsed(sample_page.page(views[0]))
    policy = next(value for _, name, value in page.attributes if "default-src" in (value or ""))
    assert page.attributes.index(("meta", "content", policy)) < 8, "before anything it governs"
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy.split("; ")[:3] == [
        "default-src 'none'",
        "img-src data:",
        f"style-src 'sha256-{digest}'",
    ]


def test_hostile_text_arrives_as_text(views):
    page = Parsed(sample_page.page(views[0]))
    assert "<i>&'\"" in page.text
    assert "这是什么" in page.text
    assert "<b>&amp;</b>" in page.text
    assert "\\x1b[31m" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page.text)


def test_every_token_is_there_with_its_id_and_place(views):
    page = Parsed(sample_page.page(views[0]))
    assert len(page.spans) == len(views[0].tokens)
    for (kinds, title), token in zip(page.spans, views[0].tokens, strict=True):
        assert kinds == f"t {token.kind}"
        assert f"id {token.id}, " in title
        assert f"characters {token.start} to {token.end}" in title
        last = token.position + token.count - 1
        place = f"{token.position} to {last}" if token.kind == "image" else token.position
        assert title.startswith(f"position {place}, ")


def test_images_are_the_pixels_of_the_view(views):
    page = Parsed(sample_page.page(views[1]))
    found = [value for _, name, value in page.attributes if name == "src"]
    assert len(found) == 2
    for value, picture in zip(found, views[1].pictures, strict=True):
        content = base64.b64decode(value.partition(",")[2])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), picture.pixels)


def test_reasons_are_shown(views):
    for view in views:
        if view.problem:
            assert sample_text.visible(view.problem) in Parsed(sample_page.page(view)).text
    assert sum(view.problem is not None for view in views) == 3


def test_a_page_replaces_another_in_one_step(views, tmp_path, monkeypatch):
    path = tmp_path / "new" / "page.html"
    sample_page.write(views[0], path)
    before = path.read_bytes()
    monkeypatch.setattr(sample_page, "_body", lambda view: iter(["x", 1]))
    with pytest.raises(TypeError):
        sample_page.write(views[1], path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_visible_leaves_nothing_that_acts():
    text = "".join(map(chr, range(0x3000))) + "\ud800\U000e0041猫👩\u200d👧"
    shown = sample_text.visible(text)
    shown.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]", shown)
    assert "猫👩\u200d👧" in shown
    assert "\\x1b" in shown
    assert sample_text.visible("a\n\tb") == "a\n\tb"


def test_thumbnails_are_half_blocks_of_the_pixels():
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[20:] = (255, 128, 0)
    lines = sample_text.thumbnail(pixels, columns=4)
    assert len(lines) == 2
    cell = "\x1b[38;2;{0}m\x1b[48;2;{0}m▀"
    assert lines[0] == cell.format("0;0;0") * 4 + "\x1b[0m"
    assert lines[1] == cell.format("255;128;0") * 4 + "\x1b[0m"
    # The upper pixel is the foreground of the upper half block, the lower one the background.
    striped = np.array([[[1, 2, 3]], [[4, 5, 6]]], dtype=np.uint8).repeat(2, axis=1)
    cell = "\x1b[38;2;1;2;3m\x1b[48;2;4;5;6m▀"
    assert sample_text.thumbnail(striped, columns=2) == [cell * 2 + "\x1b[0m"]
