"""The page holds hostile data and does nothing with it; what it shows can be read back whole."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from llava_mole import files
from llava_mole.eval.questions import Question, asked
from llava_mole.eval.report import page
from llava_mole.eval.report.html import asset
from llava_mole.eval.report.thumbnails import thumbnail, thumbnails
from llava_mole.eval.scores import Answer, Estimate, Line, Scored

VOID = {"meta", "img", "br", "input", "rect", "circle"}
HOSTILE = [
    "</script><script>alert(1)</script>",
    "</SCRIPT ><img src=x onerror=alert(1)>",
    "<!--<script>",
    "]]>&lt;b&gt;\"'`</style></title></noscript>",
    "a\u202eb\u2066c\u2028d\u2029e",
    "NUL \0 escape \x1b[31m lone \ud800 and \udfff",
    "\r\n\t\u200d",
    "مرحبا 😀 漢字",
    "\\u003c/script>",
]


class Parsed(html.parser.HTMLParser):
    """Tags and texts of a page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.texts = [], [], []
        self.scripts, self.style, self.policy = [], "", ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if tag == "script":
            self.scripts.append([attributes, ""])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1][1] += data
        elif self.open[-1:] == ["style"]:
            self.style += data
        else:
            self.texts.append(data)

    @property
    def data(self):
        return json.loads(self.scripts[0][1])


@pytest.fixture
def images(tmp_path):
    """A folder of three pictures of different shape, and one file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name, shape in [("a.png", (40, 60, 3)), ("b.png", (300, 900, 3)), ("c.png", (200, 4, 3))]:
        Image.fromarray(noise.integers(0, 255, shape, dtype=np.uint8)).save(folder / name)
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def one(folder, number=0, image="a.png", answer="a dog", score=1.0, strict=None, **fields):
    made = {"id": f"q{number}", "part": "Perception", "dataset": "CIFAR10", "references": ("dog",)}
    made |= {"turns": asked(fields.pop("text", "What is it?")), **fields}
    question = Question(image=image, image_root=str(folder), **made)
    error = "" if answer is not None else "image 'x': not readable"
    return Scored(question, Answer(question.id, answer, error), score, strict)


def line(kind="total", name="All", part="", failed=0, strict=None):
    return Line(kind, name, part, 1200, failed, Estimate(51.234, 48.1, 54.2), strict)


def written(tmp_path, scored=(), lines=(), title="a title", facts=(), notes=(), **more):
    path = tmp_path / "out" / "page.html"
    page.write_page(path, title, facts, notes, lines, scored, **more)
    return path.read_text(encoding="utf-8")


def test_only_what_the_policy_names_can_run(tmp_path, images):
    parsed = Parsed(written(tmp_path, [one(images)], [line()], notes=["small scale"]))
    (data, _), (attributes, script) = parsed.scripts
    assert data == {"type": "application/json", "id": "examples"}
    assert attributes == {}

    def source(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert parsed.policy == (
        f"default-src 'none'; img-src data:; style-src {source(parsed.style)}; script-src "
        f"{source(script)}; base-uri 'none'; form-action 'none'"
    )
    for _, attributes in parsed.tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        assert not {"src", "srcset", "action"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")


def test_the_inlined_files_cannot_end_their_elements():
    for name, tag in [("page.js", "script"), ("page.css", "style")]:
        text = asset(name).lower()
        assert f"</{tag}" not in text
        assert "<!--" not in text
    assert "innerhtml" not in asset("page.js").lower()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_examples_come_back_as_they_were(tmp_path, images, text):
    scored = [
        one(images, id=text, part=text, dataset=text, text=f"{text}?", references=(text, "x")),
        one(images, answer=text),
    ]
    scored.append(dataclasses.replace(scored[0], answer=Answer(text, None, text), score=0.0))
    whole = written(tmp_path, scored)
    parsed = Parsed(whole)
    first, second, third = parsed.data["examples"]
    assert [first[key] for key in ("id", "part", "dataset")] == [text] * 3
    assert first["question"] == f"{text}?".strip()
    assert first["references"] == [text, "x"]
    assert second["answer"] == text
    assert (third["answer"], third["error"]) == (None, text)
    block = re.search(r'id="examples">(.*?)</script>', whole, re.DOTALL)[1]
    assert block.isascii()
    assert not set("<>&\n\r\0") & set(block)
    assert len(parsed.scripts) == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_headings_are_text_and_visible(tmp_path, text):
    lines = [line("part", text, text), line("dataset", text, text)]
    whole = written(
        tmp_path, [], lines, text, [(text, text)], [text], paper={text: 1.0}, paper_title=text
    )
    parsed, plain = Parsed(whole), Parsed(written(tmp_path, [], lines[:0], paper={}))
    assert len(parsed.scripts) == 2
    assert not {"b", "br"} & {tag for tag, _ in parsed.tags}
    assert [tag for tag, _ in parsed.tags].count("img") == 0
    assert [tag for tag, _ in plain.tags].count("noscript") == 1
    assert not re.search(r"[\0\x1b\r\u2028\u2029\u202a-\u202e\u2066-\u2069]", whole)
    if text == HOSTILE[4]:
        assert r"a\u202eb\u2066c\u2028d\u2029e" in parsed.texts


def test_results_stand_in_plain_html_beside_the_papers(tmp_path):
    lines = [
        line("total", "All", failed=0, strict=Estimate(40.0, 38.0, 42.0)),
        line("part", "Perception", "Perception", failed=3),
        line("dataset", "CIFAR10", "Perception"),
    ]
    paper = {"Perception": 54.0, "CIFAR10": 99.0}
    whole = written(tmp_path, [], lines, paper=paper, paper_title="paper, Table 2 row 13")
    rows = re.findall(r'<tr class="(\w+)">(.*?)</tr>', whole)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)[:-1] for _, row in rows]
    cells = [[re.sub(r"<.*?>", "", cell) for cell in row] for row in cells]
    assert [kind for kind, _ in rows] == ["total", "part", "dataset"]
    score = ["51.23", "[48.10, 54.20]"]
    assert cells == [
        ["All", *score, "40.00", "[38.00, 42.00]", "–", "–", "1,200", "0"],
        ["Perception", *score, "–", "", "54.0", "−2.77", "1,200", "3"],
        ["CIFAR10", *score, "–", "", "–", "–", "1,200", "0"],
    ]
    assert [row.count("bad") for _, row in rows] == [0, 1, 0]
    assert "paper, Table 2 row 13" in whole
    assert 'href="#part=Perception&amp;dataset=CIFAR10"' in whole


def test_no_column_of_the_paper_or_the_strict_rule_where_there_is_none(tmp_path, images):
    texts = Parsed(written(tmp_path, [one(images)], [line()])).texts
    assert not {"printed", "strict score", "strict", "published and strict disagree"} & set(texts)
    texts = Parsed(written(tmp_path, [one(images, strict=0.0)], [line()], paper={})).texts
    assert {"printed", "paper", "strict", "published and strict disagree"} <= set(texts)


def test_a_sum_beyond_a_hundred_has_no_picture(tmp_path):
    total = dataclasses.replace(line(), score=Estimate(307.2, 300.0, 311.0))
    assert "<svg" in written(tmp_path, [], [line()])
    assert "<svg" not in written(tmp_path, [], [total])
    assert "<svg" not in written(tmp_path, [], [line()], paper={"All": 307.2})


def test_each_image_is_in_the_page_once(tmp_path, images):
    encoded = (images / "b.png").read_bytes()
    (tmp_path / "a.png").write_bytes(encoded)
    scored = [
        one(images, 0),
        one(images, 1, image="b.png"),
        one(images, 2),
        one(images, 3, image=None),
        one(images, 4, image=encoded),
        one(images, 5, image=bytes(bytearray(encoded))),
        one(tmp_path, 6),
    ]
    data = Parsed(written(tmp_path, scored)).data
    assert [example["image"] for example in data["examples"]] == [0, 1, 0, -1, 2, 2, 3]
    sizes = []
    for url in data["thumbnails"]:
        head, _, content = url.partition(",")
        assert head == "data:image/jpeg;base64"
        sizes.append(Image.open(io.BytesIO(base64.b64decode(content))).size)
    assert sizes == [(60, 40), (128, 43), (128, 43), (128, 43)]


def test_an_image_is_read_once(images, monkeypatch):
    read = []
    load = Question.load_image
    monkeypatch.setattr(Question, "load_image", lambda self: read.append(self.id) or load(self))
    pictures, indices = thumbnails(
        [one(images, n, image="bad.png" if n % 2 else "a.png") for n in range(6)]
    )
    assert read == ["q0", "q1"]
    assert [picture is None for picture in pictures] == [False, True]
    assert indices == [0, 1] * 3


def test_images_that_cannot_be_read_have_no_thumbnail(tmp_path, images):
    names = ["bad.png", "missing.png", "../page.html", b"", b"\0" * 30]
    scored = [one(images, n, image=name, answer=None, score=0.0) for n, name in enumerate(names)]
    data = Parsed(written(tmp_path, scored)).data
    assert data["thumbnails"] == [None] * len(names)
    assert {example["error"] for example in data["examples"]} == {"image 'x': not readable"}
    assert [example["image"] for example in data["examples"]] == list(range(len(names)))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16", "CMYK"])
def test_a_thumbnail_is_a_small_rgb_jpeg_without_metadata(mode):
    image = Image.new(mode, (500, 100))
    image.info = {"comment": b"secret", "exif": b"Exif\0\0secret", "icc_profile": b"secret"}
    image.info |= {"xmp": b"secret", "dpi": (7, 7)}
    content = thumbnail(image)
    assert b"secret" not in content
    small = Image.open(io.BytesIO(content))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (128, 26))
    assert set(small.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert image.size == (500, 100)


def test_a_thumbnail_looks_like_its_image():
    pixels = np.zeros((600, 400, 3), np.uint8)
    pixels[:300] = (200, 30, 60)
    small = np.asarray(Image.open(io.BytesIO(thumbnail(Image.fromarray(pixels)))), dtype=float)
    assert small.shape == (128, 85, 3)
    assert np.abs(small[:55].mean((0, 1)) - (200, 30, 60)).max() < 4
    assert small[75:].mean() < 4
    assert Image.open(io.BytesIO(thumbnail(Image.new("RGB", (900, 9))))).size == (128, 1)


def test_many_examples_stay_small(tmp_path, images):
    """7,000 examples and 1,000 images must stay below 12 MB: 500 B and 8.5 kB each."""
    scored = [one(images, number, answer="a dog and a cat " * 8) for number in range(1000)]
    empty, whole = written(tmp_path), written(tmp_path, scored)
    assert len(whole) - len(empty) < 1000 * 500
    worst = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    assert len(thumbnail(Image.fromarray(worst))) * 4 / 3 < 8500


def test_the_page_is_replaced_in_one_step(tmp_path, images, monkeypatch):
    first = written(tmp_path, [one(images)], title="first")
    folder = tmp_path / "out"

    def fails(source, target):
        assert (folder / "page.html").read_text(encoding="utf-8") == first
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", fails)
        with pytest.raises(OSError, match="disk full"):
            written(tmp_path, [one(images)], title="second")
    assert [path.name for path in folder.iterdir()] == ["page.html"]
    assert "<title>second</title>" in written(tmp_path, [one(images)], title="second")
    assert [path.name for path in folder.iterdir()] == ["page.html"]
