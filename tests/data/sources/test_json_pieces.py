"""Cutting without parsing, against the standard library's parser."""

import json
import random
import time
import tracemalloc

import pytest

from llava_mole.data.sources import jsonstream
from llava_mole.data.sources.jsonstream import Broken, items, pieces
from tests.data.helpers import row


def _all(path):
    return [item for piece in pieces(path) for item in items(piece)]


def _write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 4096])
@pytest.mark.parametrize("per_piece", [1, 3, 100])
def test_arrays_are_cut_with_lines(tmp_path, monkeypatch, indent, chunk, per_piece):
    monkeypatch.setattr(jsonstream, "CHUNK", chunk)
    monkeypatch.setattr(jsonstream, "PIECE_ITEMS", per_piece)
    rows = [row(str(i), answer='é ]}, "\\' + "\\" * i + '"\n 照\U0001f600') for i in range(9)]
    rows += [12345, "x", [], {}, None, [[1, 2], {"a": []}], "\\", -1.5e3]
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    path = _write(tmp_path / "a.json", b"\xef\xbb\xbf  \n" + text.encode())
    found = _all(path)
    assert [item for _, item in found] == rows
    assert len(list(pieces(path))) == -(-len(rows) // per_piece)
    if indent:
        # Each object begins where its opening brace is indented by two.
        lines = ("\n" + text).split("\n")
        openings = [number for number, line in enumerate(lines, 1) if line == "  {"]
        assert [line for line, _ in found][:9] == openings
    else:
        assert {line for line, _ in found} == {2}


def test_random_arrays_survive_any_cut(tmp_path, monkeypatch):
    dice = random.Random(0)
    signs = '"\\[]{},:a\n é'

    def value(depth):
        kind = dice.randrange(4 if depth else 2)
        if kind == 0:
            return "".join(dice.choices(signs, k=dice.randrange(12)))
        if kind == 1:
            return dice.choice([None, True, -12, 0.5])
        if kind == 2:
            return [value(depth - 1) for _ in range(dice.randrange(4))]
        return {f"{key}{signs}": value(depth - 1) for key in range(dice.randrange(4))}

    for number in range(300):
        rows = [value(3) for _ in range(dice.randrange(8))]
        indent = dice.choice([None, 1])
        path = _write(tmp_path / "a.json", json.dumps(rows, indent=indent, ensure_ascii=False))
        monkeypatch.setattr(jsonstream, "CHUNK", dice.randrange(1, 40))
        monkeypatch.setattr(jsonstream, "PIECE_ITEMS", dice.randrange(1, 5))
        monkeypatch.setattr(jsonstream, "PIECE_BYTES", dice.randrange(1, 200))
        assert [item for _, item in _all(path)] == rows, number


def test_a_piece_ends_at_its_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "PIECE_BYTES", 1000)
    for path in (tmp_path / "a.json", tmp_path / "a.jsonl"):
        rows = [row(str(i), answer="x" * 300) for i in range(20)]
        text = json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows))
        cut = list(pieces(_write(path, text)))
        assert {len(list(items(piece))) for piece in cut[:-1]} == {3}
        assert [item for _, item in _all(path)] == rows


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"a": 1}', ":1: the array is cut off"),
        ('[\n{"a": 1},\n', ":3: the array is cut off"),
        ('[\n{"a": 1},\n\n {"a": 1', ":4: the array is cut off"),
        ('[\n{"a": 1},\n{"a": "x},\n{"a": "y"}]', ":3: the array is cut off"),
        ('[{"a": 1}] x', ":1: text after the end"),
        ('[{"a": 1}]\n\n\n[]', ":1: text after the end"),
        ("[1}", ":1: the array ends with '}'"),
        ("[" * 100_000, "cut off"),
        ('[\n{"a": 1', ":2: the array is cut off"),
        (b"\xff\xfe[\0]\0", "not UTF-8 text"),
        (b"\x1f\x8b\x08", "not UTF-8 text"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, reason):
    path = _write(tmp_path / "a.json", text)
    with pytest.raises(ValueError, match=rf"a\.json.*{reason}"):
        _all(path)


@pytest.mark.parametrize("text", ["", " ", "[]", " [ \n] \n", "\ufeff[]", "\n\n"])
def test_empty_files(tmp_path, text):
    assert _all(_write(tmp_path / "a.json", text)) == []


BAD_ITEMS = {
    '{"a": tru}': "not a JSON",
    '{"a": 1}\n{"b": 1}': "Extra data",
    '{"a": "\x01"}': "control character",
    '{"a": ' + "1" * 5000 + "}": "digits",
    "[" * 50_000 + "]" * 50_000: "recursion",
    b'{"a": "\xff"}': "utf-8",
    "": "nothing between two commas",
}


@pytest.mark.parametrize("item", BAD_ITEMS)
def test_a_bad_element_does_not_spoil_the_others(tmp_path, item):
    content = item if isinstance(item, bytes) else item.encode()
    path = _write(tmp_path / "a.json", b'[\n{"a": 0},\n' + content + b',\n{"a": NaN}\n]')
    found = _all(path)
    assert [line for line, _ in found] == [2, 3, 4 + content.count(b"\n")] or item == ""
    assert found[0][1] == {"a": 0}
    assert BAD_ITEMS[item] in found[1][1].reason
    assert set(found[2][1]) == {"a"}


def test_a_broken_line_does_not_stop_the_others(tmp_path, monkeypatch):
    text = b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n{"b": "\xff"}\r\n{"c": 3}\r\n[4]'
    path = _write(tmp_path / "a.jsonl", text)
    for chunk, per_piece in ((4096, 100), (1, 1), (5, 2)):
        monkeypatch.setattr(jsonstream, "CHUNK", chunk)
        monkeypatch.setattr(jsonstream, "PIECE_ITEMS", per_piece)
        found = _all(path)
        assert [line for line, _ in found] == [1, 3, 4, 5, 6]
        assert found[0][1] == {"a": 1}
        assert isinstance(found[1][1], Broken)
        assert isinstance(found[2][1], Broken)
        assert [item for _, item in found[3:]] == [{"c": 3}, [4]]


def test_one_large_record_takes_linear_time(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "CHUNK", 16384)
    large = row("large", answer='"\\é' * 1_250_000)
    path = _write(tmp_path / "a.json", json.dumps([row("a"), large, row("b")]))
    begun = time.perf_counter()
    assert [item["id"] for _, item in _all(path)] == ["a", "large", "b"]
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_an_item_too_large_is_named_and_passed_over(tmp_path, monkeypatch, name):
    monkeypatch.setattr(jsonstream, "MAX_ITEM", 200)
    for chunk in (16, 4096):
        monkeypatch.setattr(jsonstream, "CHUNK", chunk)
        texts = ['{"a": 1}', '{"a": "' + "x" * 300 + '"}', '{"a": 3}']
        text = "[" + ",\n".join(texts) + "]" if name == "a.json" else "\n".join(texts)
        found = _all(_write(tmp_path / name, text))
        assert [line for line, _ in found] == [1, 2, 3]
        assert "more than 200 bytes" in found[1][1].reason
        assert [found[0][1], found[2][1]] == [{"a": 1}, {"a": 3}]


def test_an_item_too_large_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "MAX_ITEM", 2**20)
    monkeypatch.setattr(jsonstream, "CHUNK", 2**16)
    large = b'{"a": "' + b"x" * 2**25 + b'"}'
    array = _write(tmp_path / "a.json", b'[{"a": 1}, ' + large + b"]")
    lines = _write(tmp_path / "a.jsonl", b'{"a": 1}\n' + large + b"\n")
    del large
    for path in (array, lines):
        tracemalloc.start()
        found = _all(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(found[1][1], Broken)
        assert peak < 6 * 2**20
