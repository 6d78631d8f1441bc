import json
import time

import pytest

from llava_mole.data.records import BadRecord, Turn
from llava_mole.data.sources import llava, open_source
from llava_mole.data.sources.llava import LlavaSource
from tests.data.helpers import row


def test_rows():
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
        ({"id": float("nan")}, "id: must be a text"),
        ({"id": "\ud800"}, "not Unicode"),
        ({"source": "\ud800"}, "not Unicode"),
    ],
)
def test_bad_rows(change, reason):
    with pytest.raises(BadRecord, match=reason):
        llava.parse({**row("r"), **change}, "set", "f.json", 3)


@pytest.mark.parametrize("value", [None, 3, "text", [1], float("nan")])
def test_rows_that_are_no_objects(value):
    with pytest.raises(BadRecord, match="instead of an object"):
        llava.parse(value, "set")


def test_many_turns_of_one_side_take_linear_time():
    turns = [{"from": "human", "value": "x" * 50}] * 200_000 + [{"from": "gpt", "value": "A"}]
    begun = time.perf_counter()
    parsed = llava.parse({"conversations": turns}, "set")
    assert time.perf_counter() - begun < 5
    assert len(parsed.turns[0].content) == 200_000 * 51 - 1


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_file_gives_each_row_or_its_error(tmp_path, suffix):
    rows = [row("a"), row("b", answer=" "), row("c")]
    text = json.dumps(rows, indent=1) if suffix == "json" else "\n".join(map(json.dumps, rows))
    path = tmp_path / f"a.{suffix}"
    path.write_text(text)
    source = open_source("llava", str(path))
    assert source == LlavaSource(str(path), "a")
    assert source.image_root() == str(tmp_path)
    found = [item for piece in source.pieces() for item in source.read(piece)]
    assert [item.id for item in found] == ["a", "b", "c"]
    assert [isinstance(item, BadRecord) for item in found] == [False, True, False]
    assert {item.file for item in found} == {str(path)}
    assert found[2].line == (text[: text.index('"c"')].count("\n") if suffix == "json" else 3)


def test_options_of_other_sources_are_errors():
    with pytest.raises(ValueError, match="llava has no option --groups; those it knows: none"):
        open_source("llava", "x", groups=("vqa",), split=None)
    with pytest.raises(ValueError, match=r"ureader has no option --seed; .*--split, --datasets"):
        open_source("ureader", "x", seed=1)
    with pytest.raises(ValueError, match="choose one of sharegpt4v-pretrain"):
        open_source("laion", "x")
