"""The page: nothing from outside, nothing that runs but its script."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from llava_mole.reproduce.report.content import Cell, Figure, Report, Table
from llava_mole.reproduce.report.html import html


class Page(HTMLParser):
    """Tags with their attributes, and whether all are closed."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("folder", ["tiny", "paper"])
def test_nothing_is_loaded(folder, request):
    text = (request.getfixturevalue(folder) / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,"))
    assert not page.all("link") + page.all("iframe") + page.all("object") + page.all("base")
    assert not re.search(r"@import|url\(", text)


def test_the_policy_allows_its_own_style_and_script_alone(tiny):
    text = (tiny / "report.html").read_text(encoding="utf-8")
    (policy,) = [tag["content"] for tag in Page(text).all("meta") if "http-equiv" in tag]
    for tag in ("style", "script"):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_every_figure_and_link_is_there(tiny):
    page = Page((tiny / "report.html").read_text(encoding="utf-8"))
    pictures = [tag["src"].partition(",")[2] for tag in page.all("img")]
    files = [path.read_bytes() for path in (tiny / "figures").glob("*.png")]
    assert sorted(map(base64.b64decode, pictures)) == sorted(files)
    assert all(tag["alt"] for tag in page.all("img"))
    names = [tag["id"] for _, tag in page.tags if "id" in tag]
    assert len(names) == len(set(names))
    assert {tag["href"][1:] for tag in page.all("a")} <= set(names)


def test_hostile_text_stays_text():
    evil = "<script>alert(1)</script>\"'&\u202e"
    table = Table("t", evil, [evil], [[Cell(evil, (evil,), "good")]], [evil])
    figure = Figure("f", evil, evil, b"png")
    text = html(Report(evil, evil, [(evil, evil)], [evil], [table, figure]))
    page = Page(text)
    assert len(page.all("script")) == 1
    assert "alert(1)</script>" not in text
    assert "\u202e" not in text


def test_columns_sort_by_value(paper):
    page = Page((paper / "report.html").read_text(encoding="utf-8"))
    values = [float(tag["data-value"]) for tag in page.all("td") if "data-value" in tag]
    assert 304.6 in values
