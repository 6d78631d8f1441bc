"""The routing page: nothing in it can run or be fetched but what its policy names."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from llava_mole.analysis.routing import palette
from llava_mole.analysis.routing.page import Picture, write_page
from tests.analysis.routing import helpers

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.styles, self.policy, self.words = [], [], [], "", ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._open = tag
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]
        if tag == "script":
            self.scripts.append([attributes, ""])
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1][1] += data
        elif self._open == "style":
            self.styles[-1] += data
        else:
            self.words += data


def png():
    file = io.BytesIO()
    Image.new("RGB", (50, 40)).save(file, "PNG")
    return file.getvalue()


def write(path, made=None, places=(0, 1), **options) -> Page:
    pictures = [Picture("Tokens <i>", "caption &", png())]
    facts = [("run", HOSTILE)]
    write_page(path, facts, [HOSTILE], pictures, options.get("k", 3), made, places if made else ())
    return Page(path.read_text(encoding="utf-8"))


def source(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


@pytest.mark.parametrize("with_trace", [True, False])
def test_only_what_the_policy_names_can_run_or_load(tmp_path, with_trace):
    page = write(tmp_path / "x.html", helpers.trace(text=HOSTILE) if with_trace else None)
    allowed = "'none'"
    if with_trace:
        (data, _), (attributes, script) = page.scripts
        assert data == {"type": "application/json", "id": "routing"}
        assert attributes == {}
        allowed = source(script)
    else:
        assert page.scripts == []
    assert page.policy == (
        f"default-src 'none'; img-src data:; style-src {source(page.styles[0])}; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("src", "href"):
                assert value.startswith("data:image/")
            if value and value.startswith("url("):
                assert re.fullmatch(r"url\(#stripes-\d+\)", value)
    assert "\u202e" not in page.words
    assert "alert(1)" in page.words


def test_cells_lie_where_the_tokens_are_and_have_their_experts_colours(tmp_path):
    made = helpers.trace(num_experts=10, side=4, size=(80, 20))
    page = write(tmp_path / "x.html", made, places=(1, 0), k=10)
    cells = [a for tag, a in page.tags if tag == "rect" and "cell" in a.get("class", "")]
    assert len(cells) == 16
    start = made.image_positions.start
    for index, cell in enumerate(cells):
        row, column = divmod(index, 4)
        assert [int(cell[name]) for name in ("x", "y", "width", "height")] == [
            250 * column,
            250 * row,
            250,
            250,
        ]
        assert int(cell["data-p"]) == start + index
        expert = int(made.expert[1, start + index])
        plain = palette.colour(expert)
        assert cell["fill"] == (plain if expert < 8 else f"url(#stripes-{expert})")
        assert ("padding" in cell["class"]) == (row in (0, 3))
    frame = next(a for tag, a in page.tags if a.get("class") == "frame")
    assert [float(frame[name]) for name in ("x", "y", "width", "height")] == [0, 375, 1000, 250]
    words = [a["class"] for tag, a in page.tags if tag == "span" and "data-p" in a]
    assert words == [
        f"t {'answer' if t.kind == 'target' else 'question'} e{int(made.expert[1, t.position])}"
        for t in made.words
    ]
    assert {f"stripes-{k}" for k in (8, 9)} == {a["id"] for t, a in page.tags if t == "pattern"}


def test_the_script_gets_every_layers_experts(tmp_path):
    made = helpers.trace(layers=3)
    page = write(tmp_path / "x.html", made, places=(2, 0))
    data = json.loads(page.scripts[0][1])
    assert data["layers"] == [2, 0]
    assert data["experts"] == [made.expert[2].tolist(), made.expert[0].tolist()]
    assert data["probs"][0] == [75] * made.expert.shape[1]
    assert data["first"] == made.image_positions.start
    rows = re.findall(
        r"<button type=\"button\">(layer \d)</button>", (tmp_path / "x.html").read_text()
    )
    assert rows == ["layer 2", "layer 0"]


def test_bars_of_a_layer_are_its_shares(tmp_path):
    made = helpers.trace()
    text = write(tmp_path / "x.html", made) and (tmp_path / "x.html").read_text()
    bar = re.search(r"layer 0</button></th>\s*<td>(.*?)</td>", text, re.DOTALL)[1]
    widths = [float(w) for w in re.findall(r'width="([\d.]+)%"', bar)]
    counts = made.counts("image")[0]
    expected = [100 * int(n) / int(counts.sum()) for n in counts if n]
    assert widths == pytest.approx(expected, abs=0.01)


def test_without_a_grid_only_words_are_shown(tmp_path):
    from dataclasses import replace

    page = write(tmp_path / "x.html", replace(helpers.trace(), grid=None))
    assert not [tag for tag, a in page.tags if a.get("class") == "map"]
    assert [a for tag, a in page.tags if tag == "span" and "data-p" in a]
    assert json.loads(page.scripts[0][1])["side"] is None
