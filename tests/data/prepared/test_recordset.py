"""Opening data sets: prepared folders as they are, LLaVA files through the cache."""

import json
import pickle

import pytest

from llava_mole.data.audit.audit import audit
from llava_mole.data.config import DatasetConfig
from llava_mole.data.prepared import recordset as arrow
from llava_mole.data.prepared.columns import batches, to_batch, to_records
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.prepared.recordset import open_dataset
from llava_mole.data.sources.llava import LlavaSource
from llava_mole.data.tokens.encode import Encoder
from tests.data.helpers import VicunaLike, record, row, write_jsonl

RECORDS = [
    record("Q\u2003", "照片 </s>", task="vqa", source="x", line=2**40),
    record("<image><image>", "None", images=("0.png", "d/1.png")),
    record("<image>?", "A", "<image>", "B", images=(b"\0\xff", "1.png"), id=""),
    record("Q", "A", "Q2", "A2 <image>", file="é.json"),
]


def _open(path, name="set", cache=None, **options):
    return open_dataset(DatasetConfig(name, str(path), **options), cache_dir=cache)


@pytest.fixture
def file(tmp_path):
    rows = [row(f"r{i}", f"{i}.png", answer=f"A{i}" if i % 5 else "") for i in range(20)]
    return write_jsonl(tmp_path / "a.jsonl", rows)


def test_records_survive_columns():
    for size in (1, 2, 4):
        tables = []
        for start in range(0, 4, size):
            tables.append(to_batch(RECORDS[start : start + size], None))
        table = arrow.pa.Table.from_batches(tables)
        assert list(to_records(table)) == RECORDS
        # A slice begins inside the lists' values.
        assert list(to_records(table.slice(1, 2))) == RECORDS[1:3]
    assert to_batch(RECORDS, [1, None, 3, 4]).column("length").to_pylist() == [1, None, 3, 4]


def test_batches_are_bounded_by_bytes():
    large = [record("<image>", "A", images=(bytes(9 * 2**20),)) for _ in range(9)]
    assert [len(batch) for batch in batches(iter(large))] == [4, 4, 1]
    assert [len(batch) for batch in batches(iter(RECORDS * 1500))] == [2000, 2000, 2000]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_opened_records(file, tmp_path, kind):
    path = file if kind == "file" else prepare(LlavaSource(str(file), "set"), tmp_path / "o").folder
    opened = _open(path, cache=tmp_path / "cache")
    wanted = [
        record(
            "<image>\nWhat?",
            f"A{i}",
            images=(f"{i}.png",),
            id=f"r{i}",
            source="set",
            task="",
            file=str(file),
            line=i + 1,
        )
        for i in range(20)
        if i % 5
    ]
    assert list(opened.records()) == wanted
    assert list(opened.records(3, 7)) == wanted[3:7]
    assert list(opened.records(14, 99)) == wanted[14:]
    assert [opened.record(i) for i in (15, 0)] == [wanted[15], wanted[0]]
    assert opened.record(2) == pickle.loads(pickle.dumps(opened)).record(2)
    assert [(p.dataset, p.line) for p in opened.problems] == [("set", n) for n in (1, 6, 11, 16)]
    assert opened.image_root == tmp_path
    assert opened.lengths is None


def test_blocks_join_without_a_seam(tmp_path, monkeypatch):
    file = write_jsonl(tmp_path / "a.jsonl", [row(f"r{i}") for i in range(50)])
    opened = _open(file, cache=tmp_path / "cache")
    monkeypatch.setattr(arrow, "_BLOCK", 7)
    assert [r.id for r in opened.records(5, 40)] == [f"r{i}" for i in range(5, 40)]


def test_a_folder_is_reported_under_the_name_it_has_in_the_run(file, tmp_path, tokenizer):
    encoder = Encoder(tokenizer, VicunaLike(), 4, 1000)
    prepare(LlavaSource(str(file), "published"), tmp_path / "out", encoder=encoder)
    opened = _open(tmp_path / "out", "mine")
    assert opened.problems[0].dataset == "mine"
    assert opened.record(0).source == "published"
    assert opened.lengths == encoder.fingerprint
    (tmp_path / "images").mkdir()
    moved = _open(tmp_path / "out", "mine", image_root=str(tmp_path / "images"))
    assert moved.image_root == tmp_path / "images"
    assert moved.stamp == opened.stamp


def test_files_and_images_that_move_together_are_found(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "images").mkdir(parents=True)
    file = write_jsonl(old / "a.jsonl", [row("a")])
    prepare(LlavaSource(str(file), "set"), old / "out", image_root=old / "images")
    old.rename(new)
    assert _open(new / "out").image_root == new / "images"


def test_conversions_are_cached_by_content(file, tmp_path):
    first = _open(file, cache=tmp_path / "cache")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    again = _open(file, cache=tmp_path / "cache")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*")} == written
    assert again.stamp == first.stamp
    write_jsonl(file, [row("new", "0.png")])
    changed = _open(file, cache=tmp_path / "cache")
    assert [r.id for r in changed.records()] == ["new"]
    assert changed.stamp != first.stamp
    # What was opened before goes on reading what it opened.
    assert first.record(0).id == "r1"


def test_an_interrupted_conversion_leaves_nothing_behind(tmp_path):
    path = tmp_path / "cut.json"
    path.write_text(json.dumps([row("a"), row("b")])[:-10])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"data set 'set': .*cut\.json:1"):
            _open(path, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_unknown_paths(file, tmp_path):
    with pytest.raises(ValueError, match=r"data set 'set': .*nowhere.jsonl is not a file"):
        _open(tmp_path / "nowhere.jsonl", cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"data set 'set': image_root .* is not a folder"):
        _open(file, cache=tmp_path / "cache", image_root=str(tmp_path / "no"))
    with pytest.raises(ValueError, match=r"data set 'set': .* is not a prepared data set"):
        _open(tmp_path)


def test_weights_multiply_as_decimals(file, tmp_path):
    config = DatasetConfig("set", str(file), weight=0.1)
    assert open_dataset(config, "d", 0.7, tmp_path / "cache").weight == 0.07


def test_a_shard_whose_content_changed_is_named(file, tmp_path):
    folder = tmp_path / "out"
    prepared = prepare(LlavaSource(str(file), "set"), folder)
    opened = open_dataset(DatasetConfig("set", str(folder)))
    opened.verify()
    shard = prepared.shards[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0x40
    shard.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=rf"{shard.name} its content has changed.*--overwrite"):
        opened.verify()
    with pytest.raises(ValueError, match="its content has changed"):
        audit([opened], cache_dir=tmp_path / "cache")
    # Damaged where it is opened: the schema at its beginning.
    shard.write_bytes(b"\xff" * 64 + bytes(content[64:]))
    with pytest.raises(ValueError, match=rf"{shard.name} can't be read.*--overwrite"):
        open_dataset(DatasetConfig("set", str(folder)))
    assert prepare(LlavaSource(str(file), "set"), folder, overwrite=True).stamp == prepared.stamp
