"""The prepare engine: what it writes, when it writes anew, and what it never touches."""

import json
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest

from llava_mole.data.prepared.columns import SCHEMA
from llava_mole.data.prepared.folder import load
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.records import BadRecord
from llava_mole.data.sources import jsonstream
from llava_mole.data.sources.llava import LlavaSource
from llava_mole.data.sources.source import Piece
from llava_mole.data.tokens.encode import Encoder
from tests.data.helpers import VicunaLike, record, row, write_jsonl
from tests.data.prepared.many_pieces import PIECE_ITEMS, content_of, source_of, write_rows


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "PIECE_ITEMS", PIECE_ITEMS)
    return write_rows(tmp_path / "a.json")


def test_datasets_reads_the_folder(file, tmp_path):
    prepared = prepare(source_of(file), tmp_path / "out")
    assert (prepared.records, prepared.problems, len(prepared.shards)) == (51, 9, 9)
    table = datasets.load_from_disk(str(tmp_path / "out"))
    assert table.data.schema.equals(SCHEMA)
    wanted = [i for i in range(60) if i % 7]
    assert table["id"][:] == [f"r{i}" for i in wanted]
    assert table["images"][:] == [[{"path": f"{i}.png", "bytes": None}] for i in wanted]
    assert table[0]["turns"] == [
        {"role": "user", "content": "<image>\nWhat?"},
        {"role": "assistant", "content": "A 1"},
    ]
    lines = [n for n, line in enumerate(file.read_text().split("\n"), 1) if line == " {"]
    assert table["line"][:] == [lines[i] for i in wanted]
    problems = prepared.problems_listed()
    assert [problem.id for problem in problems] == [f"r{i}" for i in range(0, 60, 7)]
    assert [problem.line for problem in problems] == lines[::7]
    assert (problems[-1], problems[1:3]) == (list(problems)[-1], list(problems)[1:3])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {path.name for path in prepared.shards} | {
        "dataset_info.json",
        "state.json",
        "prepared.json",
        "problems.jsonl",
    }
    assert sorted(names)[0] == "data-00000-of-00009.arrow"
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "out"}


def test_the_number_of_processes_does_not_show(file, tmp_path):
    one = prepare(source_of(file), tmp_path / "one")
    two = prepare(source_of(file), tmp_path / "two", processes=2)
    assert one.stamp == two.stamp
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_done_work_is_left_as_it_is(file, tmp_path):
    first = prepare(source_of(file), tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert prepare(source_of(file), tmp_path / "out", processes=2) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times
    (tmp_path / "images").mkdir()
    moved = prepare(source_of(file), tmp_path / "out", image_root=tmp_path / "images")
    assert moved.image_root == tmp_path / "images"
    assert all(path.stat().st_mtime_ns == times[path] for path in moved.shards)
    assert moved.stamp == first.stamp


def test_other_files_or_settings_are_prepared_anew_if_so_wished(file, tmp_path):
    first = prepare(source_of(file), tmp_path / "out")
    content = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    other = LlavaSource(str(file), "other")
    with pytest.raises(ValueError, match=r"see source in its prepared\.json.*--overwrite"):
        prepare(other, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == content
    named = prepare(other, tmp_path / "out", overwrite=True)
    assert named.stamp != first.stamp
    file.write_text(json.dumps([row("new")]))
    with pytest.raises(ValueError, match="see files in its"):
        prepare(other, tmp_path / "out")
    again = prepare(other, tmp_path / "out", overwrite=True)
    assert (again.records, len(again.shards)) == (1, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "out"}


def test_folders_of_others_are_never_replaced(file, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="mine exists but is no prepared data set"):
        prepare(source_of(file), tmp_path / "mine")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/thesis.txt").write_text("x")
    with pytest.raises(ValueError, match=r"out\.partial was not written by a preparation"):
        prepare(source_of(file), tmp_path / "out")
    assert (tmp_path / "mine/thesis.txt").exists()
    assert (tmp_path / "out.partial/thesis.txt").exists()


def test_a_file_that_is_cut_off_leaves_nothing_behind(file, tmp_path):
    prepare(source_of(file), tmp_path / "out")
    before = content_of(tmp_path / "out")
    file.write_text(file.read_text()[:-200])
    for processes in (1, 2):
        with pytest.raises(ValueError, match=r"a\.json:\d+: the array is cut off"):
            prepare(source_of(file), tmp_path / "out", processes=processes, overwrite=True)
        assert {path.name for path in tmp_path.iterdir()} == {"a.json", "out"}
    assert content_of(tmp_path / "out") == before


@dataclass(frozen=True)
class _Carrying:
    """Records with their images inside, one with none, one that is no record."""

    path: str
    name: str = "carrying"

    def settings(self):
        return {"version": 1}

    def image_root(self):
        return str(Path(self.path).parent / "images")

    def files(self):
        return [self.path]

    def pieces(self):
        yield Piece(self.path, 0, 3)

    def read(self, piece):
        yield record("<image><image>Q", "A", images=(b"\xff\xd8one", b"two"))
        yield BadRecord("row: broken", piece.file, 2, "b")
        yield record("Q", "A")


def test_records_that_carry_their_images(tmp_path):
    path = write_jsonl(tmp_path / "a", [])
    prepared = prepare(_Carrying(str(path)), tmp_path / "out")
    rows = prepared.rows()
    assert rows[0]["images"] == [
        {"path": None, "bytes": b"\xff\xd8one"},
        {"path": None, "bytes": b"two"},
    ]
    assert rows[1]["images"] == []
    # The published folder is no longer needed.
    assert prepared.image_root == tmp_path / "out"


def test_lengths_of_an_encoder(file, tmp_path, tokenizer):
    encoder = Encoder(tokenizer, VicunaLike(), 4, 10**6)
    plain = prepare(source_of(file), tmp_path / "plain")
    assert (plain.lengths, plain.rows()["length"][:]) == (None, [None] * 51)
    counted = prepare(source_of(file), tmp_path / "counted", encoder=encoder, processes=2)
    assert counted.lengths == encoder.fingerprint
    records = [record("<image>\nWhat?", f"A {i}") for i in range(60) if i % 7]
    assert counted.rows()["length"][:] == [len(encoder(r).input_ids) for r in records]
    assert counted.stamp != plain.stamp
    again = prepare(source_of(file), tmp_path / "plain", encoder=encoder, overwrite=True)
    assert again.stamp == counted.stamp


def test_a_damaged_folder_is_named(file, tmp_path):
    prepared = prepare(source_of(file), tmp_path / "out")
    content = prepared.shards[3].read_bytes()
    prepared.shards[3].write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"data-00003-of-00009\.arrow has .* copy the folder"):
        load(tmp_path / "out")
    prepared.shards[3].unlink()
    with pytest.raises(ValueError, match=r"data-00003-of-00009\.arrow is missing"):
        load(tmp_path / "out")
    (tmp_path / "out/prepared.json").write_text("{")
    with pytest.raises(ValueError, match=r"prepared\.json is damaged"):
        load(tmp_path / "out")
    (tmp_path / "out/prepared.json").unlink()
    with pytest.raises(ValueError, match="not a prepared data set"):
        load(tmp_path / "out")


def test_a_full_disk_is_seen_before_it_is_full(file, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": file.stat().st_size - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="GiB are free; make room"):
        prepare(source_of(file), tmp_path / "out")
    usage.free += 1
    assert prepare(source_of(file), tmp_path / "out").records == 51
