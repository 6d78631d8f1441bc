"""Thousands of damaged rows: each is a record that says what the row said, or named as bad.

``LLAVA_MOLE_FUZZ=10000 pytest tests/data/sources/test_fuzz_records.py -s`` is the full run, and
prints what became of them.
"""

import base64
import json
import random
import re
from collections import Counter

import pytest

from llava_mole.data.records import BadRecord, Record
from llava_mole.data.sources import jsonstream
from llava_mole.data.sources.llava import LlavaSource
from llava_mole.data.sources.ureader import UReaderSource
from tests.data.fuzz import count
from tests.data.sources.fuzz_rows import mutated, row, written

SPACE = b" \t\r\n"
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def unicode_text(value) -> bool:
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def expected(content: bytes, line: int):
    """What a row says: (id, source, task, images, turns); None if it says nothing trainable.

    The independent reading: the whole row at once, conditions as a list, no messages.
    """
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    names = []
    for key, default in (("id", str(line)), ("source", "set"), ("task", "")):
        name = value.get(key)
        if isinstance(name, float | list | dict):
            return None
        names.append(default if name is None or name == "" else str(name))
    images = value.get("image")
    images = [] if images is None else images if isinstance(images, list) else [images]
    if not all(unicode_text(text) for text in (*names, *images)):
        return None
    if any(not image or "\0" in image for image in images):
        return None
    said = value.get("conversations")
    if not isinstance(said, list) or not all(isinstance(turn, dict) for turn in said):
        return None
    speakers = [turn.get("from") for turn in said]
    texts = [turn.get("value") for turn in said]
    if not all(isinstance(name, str) and name in SPEAKERS for name in speakers):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    # One letter a turn: users' runs become one, then they must strictly alternate.
    roles = "".join(SPEAKERS[name][0] for name in speakers)
    runs = [match.span() for match in re.finditer("u+|a", roles)]
    turns = tuple("\n".join(texts[start:stop]) for start, stop in runs)
    if not turns or not re.fullmatch("(u+a)+", roles):
        return None
    if not all(unicode_text(text) and text.strip() for text in turns):
        return None
    if sum(len(re.findall("<image>", text)) for text in turns[::2]) != len(images):
        return None
    return (*names, tuple(images), turns)


def said(record: Record):
    assert [turn.role for turn in record.turns] == ["user", "assistant"] * (len(record.turns) // 2)
    turns = tuple(turn.content for turn in record.turns)
    return record.id, record.source, record.task, record.images, turns


def rows(number: int, seed: int) -> list[bytes]:
    chooser = random.Random(seed)
    good = json.dumps(row(chooser, 0)).encode()
    damaged = [written(mutated(row(chooser, n), chooser), chooser) for n in range(number)]
    # A good one first: the first character tells an array from lines.
    return [good, *damaged]


def read(source) -> list[Record | BadRecord]:
    return [item for piece in source.pieces() for item in source.read(piece)]


def compare(items, contents: dict[int, bytes], path) -> Counter:
    """Checks one item for each of ``contents``, by line, against the independent reading."""
    kinds = Counter()
    assert [item.line for item in items] == list(contents)
    for item, (line, content) in zip(items, contents.items(), strict=True):
        assert item.file == str(path)
        wanted = expected(content, line)
        if isinstance(item, BadRecord):
            assert wanted is None, (line, item, content[:300])
            assert item.reason
            assert f"{path}:{line}: " in str(item)
            str(item).encode("utf-8", "surrogatepass")
            kinds[re.sub(r"\d+|'.*'|\(.*\)|\"[^\"]*\"", "..", item.reason)[:60]] += 1
        else:
            assert wanted is not None, (line, item, content[:300])
            assert said(item) == wanted, (line, item, content[:300])
            kinds["accepted"] += 1
    return kinds


@pytest.mark.parametrize("small_pieces", [False, True])
def test_lines(tmp_path, monkeypatch, small_pieces):
    if small_pieces:
        monkeypatch.setattr(jsonstream, "CHUNK", 700)
        monkeypatch.setattr(jsonstream, "PIECE_ITEMS", 7)
    chooser, kinds = random.Random(1), Counter()
    number = count(500)
    path = tmp_path / "rows.jsonl"
    lines = []
    for content in rows(number, 100 + small_pieces):
        lines += [content] + [chooser.choice((b"", b" ", b"\t\r"))] * chooser.choice(
            (0, 0, 0, 1, 2)
        )
    path.write_bytes(b"\xef\xbb\xbf" * small_pieces + b"\n".join(lines) + b"\n" * small_pieces)
    contents = {n: line for n, line in enumerate(lines, start=1) if line.strip(SPACE)}
    assert len(contents) == number + 1
    kinds = compare(read(LlavaSource(str(path), "set")), contents, path)
    print(json.dumps(dict(kinds.most_common()), indent=1))
    assert min(kinds["accepted"], number - kinds["accepted"]) > number // 10


@pytest.mark.parametrize("small_pieces", [False, True])
def test_an_array(tmp_path, monkeypatch, small_pieces):
    if small_pieces:
        monkeypatch.setattr(jsonstream, "CHUNK", 700)
        monkeypatch.setattr(jsonstream, "PIECE_ITEMS", 7)
    chooser = random.Random(2)
    path = tmp_path / "rows.json"
    parts, contents, line = [b"\n["], {}, 2
    for content in rows(count(500), 200 + small_pieces):
        space = chooser.choice((b"", b"\n", b" \n\n\t", b" "))
        # Several on one line would share a key.
        if line in contents and b"\n" not in space:
            space = b"\n"
        line += space.count(b"\n")
        parts += [b"," if contents else b"", space, content]
        contents[line] = content
    path.write_bytes(b"".join(parts) + b"\n]\n")
    kinds = compare(read(LlavaSource(str(path), "set")), contents, path)
    print(json.dumps(dict(kinds.most_common()), indent=1))


def test_an_array_that_is_broken_as_a_whole_names_the_line(tmp_path):
    chooser, outcomes = random.Random(3), Counter()
    path = tmp_path / "rows.json"
    for _ in range(count(500) // 20):
        contents = rows(20, chooser.randrange(10**9))
        text = b"[" + b",\n".join(contents) + b"]"
        place = chooser.randrange(1, len(text))
        kind = chooser.choice(("cut", "bracket", "quote"))
        if kind == "cut":
            text = text[:place]
        else:
            sign = b'"' if kind == "quote" else chooser.choice((b"]", b"}", b"[", b"{"))
            text = text[:place] + sign + text[place:]
        path.write_bytes(text)
        known = {expected(content, line) for line, content in enumerate(contents, start=1)}
        items = failure = None
        try:
            items = read(LlavaSource(str(path), "set"))
        except ValueError as error:
            failure = str(error)
        if failure is not None:
            assert re.match(re.escape(str(path)) + r":\d+: ", failure), failure
            outcomes[kind, "named"] += 1
            continue
        # The damage sat inside a string, or balanced: then it is that element's.
        assert kind != "cut"
        outcomes[kind, "read"] += 1
        touched = text[:place].count(b",\n") + 1
        for item in items:
            if isinstance(item, Record) and kind == "bracket":
                assert said(item) in known or item.line == touched, item
    print(outcomes)
    assert outcomes["cut", "named"]
    assert outcomes["quote", "named"]


def test_ureaders_rows(tmp_path):
    chooser, kinds = random.Random(4), Counter()
    pixel = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
    lines = []
    for number in range(count(500)):
        value = {
            "image": ["DUE_Benchmark/DocVQA/pngs/a.png"],
            "prompt": "",
            "text": "",
            "system_instruction": "",
            "conversations": [
                {"from": "user", "value": "<image>"},
                {"from": "user", "value": f"Question {number}?"},
                {"from": "assistant", "value": chooser.choice(("None", "Nigeria"))},
            ],
            "task_type": "qa_sft",
        }
        if number % 5 == 0:
            value["image"] = [chooser.choice((pixel, f"data:image/png;base64,{pixel}", "x.tiff.2"))]
        lines.append(
            written(mutated(value, chooser), chooser) if number else json.dumps(value).encode()
        )
    (tmp_path / "ureader_json").mkdir()
    path = tmp_path / "ureader_json/train.jsonl"
    path.write_bytes(b"\n".join(lines))
    items = read(UReaderSource(str(tmp_path)))
    assert [item.line for item in items] == list(range(1, len(lines) + 1))
    for item, line in zip(items, lines, strict=True):
        assert item.file == str(path)
        kinds[type(item).__name__] += 1
        if isinstance(item, Record):
            texts = [turn["value"] for turn in json.loads(line)["conversations"]]
            assert item.turns[-1].content == texts[-1]
            assert all(
                text in item.turns[0].content for text in texts[: texts.index(texts[-1])][:1]
            )
        else:
            assert item.reason
    print(kinds)
    assert min(kinds.values()) > len(lines) // 10
