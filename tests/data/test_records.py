import json
import pickle

import pytest

from llava_mole.data.records import BadRecord, Record, Turn
from llava_mole.data.sources import llava
from llava_mole.data.sources.jsonstream import Broken, items
from tests.data.helpers import record, row


def test_a_good_record_keeps_everything():
    good = record("<image>\nOne <image>?", "Two", "More?", "Yes <image>")
    assert good.images == ("0.png", "1.png")
    assert good.turns[0] == Turn("user", "<image>\nOne <image>?")


@pytest.mark.parametrize(
    ("contents", "images", "reason"),
    [
        ((), (), "no turns"),
        (("Q",), (), "nobody answers"),
        (("Q", " \n"), (), "assistant's text is empty"),
        (("", "A"), (), "user's text is empty"),
        (("<image>Q", "A"), (), r"0 image\(s\) but 1 <image>"),
        (("Q", "A"), ("a.png",), r"1 image\(s\) but 0 <image>"),
        (("<image>Q", "A"), ("a.png", "b.png"), r"2 image\(s\) but 1"),
        (("<image>Q", "A"), ("",), "not a path"),
        (("<image>Q", "A"), ("a\0b.png",), "not a path"),
        (("Q \ud800", "A"), (), "lone surrogate"),
    ],
)
def test_bad_records_name_place_and_remedy(contents, images, reason):
    with pytest.raises(BadRecord, match=reason) as caught:
        record(*contents, images=images)
    assert str(caught.value).startswith("f.jsonl:7: record 'r1': ")


def test_roles_must_alternate():
    turns = (Turn("assistant", "A"), Turn("user", "Q"))
    with pytest.raises(BadRecord, match=r"conversations\[0\]: role is 'assistant'"):
        Record("r", "s", "t", (), turns)


def test_bad_record_survives_pickling():
    error = pickle.loads(pickle.dumps(BadRecord("why", "f", 3, "x")))
    assert (error.file, error.line, error.id, error.reason) == ("f", 3, "x", "why")


def test_llava_rows():
    parsed = llava.parse(
        {
            "id": 5,
            "image": ["a.png", "b.png"],
            "source": "nlvr",
            "conversations": [
                {"from": "human", "value": "<image>"},
                {"from": "user", "value": "Same as <image>?"},
                {"from": "gpt", "value": "None"},
            ],
        },
        "set",
    )
    assert parsed.id == "5"
    assert parsed.source == "nlvr"
    assert parsed.images == ("a.png", "b.png")
    assert parsed.turns == (Turn("user", "<image>\nSame as <image>?"), Turn("assistant", "None"))
    text_only = llava.parse({"model": "", **row("t", image=None)}, "set")
    assert text_only.images == ()
    assert text_only.source == "set"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": 3}, "image: must be"),
        ({"image": [3]}, "image: must be"),
        ({"conversations": "hi"}, "must be a list"),
        ({"conversations": [{"from": "human"}]}, "'value'"),
        ({"conversations": [{"from": "system", "value": "x"}]}, "'system'"),
        ({"conversations": [{"from": ["x"], "value": "x"}]}, "write 'human' or 'gpt'"),
        ({"id": {}}, "id: must be a text"),
        ({"id": "\ud800"}, "not Unicode"),
    ],
)
def test_bad_llava_rows(change, reason):
    with pytest.raises(BadRecord, match=reason):
        llava.parse({**row("r"), **change}, "set", "f.json", 3)


@pytest.mark.parametrize("value", [None, 3, "text", [1]])
def test_rows_that_are_no_objects(value):
    with pytest.raises(BadRecord, match="instead of an object"):
        llava.parse(value, "set")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 7, 64, 4096])
def test_arrays_are_streamed_with_lines(tmp_path, monkeypatch, indent, chunk):
    monkeypatch.setattr("llava_mole.data.sources.jsonstream.CHUNK", chunk)
    rows = [row(str(index), answer='é ]}, "\n 照\U0001f600') for index in range(9)] + [12345, "x"]
    path = tmp_path / "a.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf  " + text.encode())
    found = list(items(path))
    assert [item for _, item in found] == rows
    lines = text.split("\n")
    if indent:
        # Each element begins where its opening brace is indented by two.
        assert [line for line, _ in found][:9] == [
            number for number, line in enumerate(lines, 1) if line == "  {"
        ]
    else:
        assert {line for line, _ in found} == {1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"a": 1}', "cut off"),
        ('[{"a": 1},', "cut off"),
        ('[{"a": 1', ":1: not JSON"),
        ('[\n{"a": 1}\n{"b": 1}]', ":3: expected ','"),
        ('[{"a": 1}] x', "after the end"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_broken_arrays_are_refused(tmp_path, text, reason):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        list(items(path))


def test_empty_array(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(" [ ] \n")
    assert list(items(path)) == []


def test_a_broken_line_does_not_stop_the_others(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n{"b": "\xff"}\n{"c": 3}\n')
    found = list(items(path))
    assert [line for line, _ in found] == [1, 3, 4, 5]
    assert found[0][1] == {"a": 1}
    assert isinstance(found[1][1], Broken)
    assert isinstance(found[2][1], Broken)
    assert found[3][1] == {"c": 3}
