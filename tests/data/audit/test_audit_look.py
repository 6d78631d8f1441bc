"""What a look at the rows finds: duplicates, notes, kinds, lengths; by one process or several."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from llava_mole.data.audit import audit as audit_module
from llava_mole.data.audit import look
from llava_mole.data.audit.audit import audit
from llava_mole.data.audit.problems import KINDS, OTHER, kind_of
from llava_mole.data.config import DatasetConfig
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.prepared.recordset import open_dataset
from llava_mole.data.sources.llava import LlavaSource
from llava_mole.data.tokens.encode import Encoder
from tests import tiny
from tests.data.helpers import VicunaLike, row, write_images, write_jsonl


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", 4)
    return tmp_path


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer, VicunaLike(), tiny.NUM_IMAGE_TOKENS, 200)


def _open(folder, rows, name="a"):
    path = write_jsonl(folder / f"{name}.jsonl", rows)
    config = DatasetConfig(name, str(path), str(folder / "images"))
    return open_dataset(config, cache_dir=folder / "cache")


def _audit(folder, *sets, **options):
    return audit(sets, cache_dir=folder / "cache", **options)


def _same(one, other):
    """Whether two audits found the same, wherever their problems are kept."""
    assert [a.problems[:] for a in one.sets] == [b.problems[:] for b in other.sets]
    for a, b in zip(one.sets, other.sets, strict=True):
        for field in dataclasses.fields(a):
            if field.name != "problems":
                np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name))
    return True


def test_duplicates_are_the_same_images_and_turns(folder):
    rows = [row(f"r{i}", f"{i}.png") for i in range(4)]
    rows += [row("again", "1.png"), row("other image", "2.png", answer="B"), row("text", None)]
    rows += [row("third", "1.png") | {"source": "x"}, row("text again", None)]
    # The same characters, cut elsewhere.
    rows += [row("cut", None, "Wha", "t?A"), row("cut", None, "What?", "A ")]
    found = _audit(folder, _open(folder, rows))
    assert found.duplicates == {("a", "a"): 2, ("a", "x"): 1}
    file = folder / "a.jsonl"
    assert found.sets[0].repeated[0] == (f"{file}:5: record 'again'", f"{file}:2: record 'r1'")
    assert len(found.keep[0]) == len(rows), "a note, not a fault"


def test_bad_records_are_no_duplicates(folder):
    rows = [row("a", "missing.png"), row("b", "missing.png"), row("c", "0.png")]
    assert _audit(folder, _open(folder, rows)).duplicates == {}


def test_hashes_of_images_in_the_table_tell_contents_apart(folder):
    hashes = {}
    for name, content in (("a", b"x" * 20_000), ("b", b"x" * 20_001), ("c", b"y" + b"x" * 19_999)):
        table = _open(folder, [row("r", "0.png")], "base").rows.data.table
        images = [[{"path": None, "bytes": content}]]
        at = table.schema.get_field_index("images")
        field = table.schema.field("images")
        changed = table.set_column(at, field, pa.array(images, field.type))
        hashes[name] = look._hashes(changed)[0][0]
    assert len(set(hashes.values())) == 3


def test_several_processes_find_what_one_does(folder, encoder, monkeypatch):
    rows = [
        row(f"r{i}", f"{i % 5}.png", answer=f"A{i}" * (1 + 40 * (i % 7 == 0))) for i in range(60)
    ]
    rows[9]["conversations"][1]["value"] = " "
    sets = [_open(folder, rows), _open(folder, rows[:20], "b"), _open(folder, rows[20:21], "c")]
    alone = _audit(folder, *sets, encoder=encoder, check_images="decode")
    monkeypatch.setattr(audit_module, "_ALONE", 0.0)
    monkeypatch.setattr(audit_module, "_SMALL_BLOCK", 7)
    spread = _audit(folder, *sets, encoder=encoder, check_images="decode", num_workers=2)
    assert len(alone.problems) > 10
    assert _same(alone, spread)


def test_lengths_and_images_are_those_of_the_samples(folder, tokenizer):
    rows = [row(f"r{i}", f"{i}.png" if i % 3 else None, answer="A" * 9 * (i + 1)) for i in range(4)]
    long = row("long", "1.png")
    long["conversations"] += row("", "2.png", "Q" * 300)["conversations"]
    long["image"] = ["1.png", "2.png"]
    sets = [_open(folder, [*rows, long])]
    encoder = Encoder(tokenizer, VicunaLike(), 4, 200, "drop_turns")
    found = _audit(folder, *sets, encoder=encoder)
    samples = [encoder(sets[0].record(int(index))) for index in found.keep[0]]
    assert found.lengths[0].tolist() == [len(sample.input_ids) for sample in samples]
    assert found.num_images[0].tolist() == [len(sample.images) for sample in samples]
    assert (found.lengths[0].dtype, found.num_images[0].dtype) == (np.int32, np.int16)
    assert found.num_images[0][-1] == 1
    assert found.shortened == {"a": 1}
    source = found.sets[0].sources["a"]
    tokens = found.lengths[0]
    assert source.tokens == (tokens.min(), int(np.median(tokens)), tokens.max())
    assert (source.records, source.images, source.text_only) == (5, 3, 2)
    assert _audit(folder, *sets).lengths == [None]


def test_lengths_of_the_table_are_used_if_this_encoder_counted_them(folder, encoder, monkeypatch):
    rows = [row(f"r{i}", f"{i}.png", answer="A" * 30 * (i + 1)) for i in range(4)]
    path = write_jsonl(folder / "a.jsonl", rows)
    root = folder / "images"
    prepare(LlavaSource(str(path), "a"), folder / "out", image_root=root, encoder=encoder)
    records = open_dataset(DatasetConfig("a", str(folder / "out")), cache_dir=folder / "cache")
    assert records.lengths == encoder.fingerprint
    counted = _audit(folder, dataclasses.replace(records, lengths=None), encoder=encoder)
    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "_tokens", None)
        assert _same(_audit(folder, records, encoder=encoder), counted)
    assert len(counted.keep[0]) == 4
    # Another model's lengths say nothing.
    other = dataclasses.replace(encoder, num_image_tokens=50)
    assert _audit(folder, records, encoder=other).lengths[0][0] == counted.lengths[0][0] + 46


def test_notes_of_decoded_images(folder):
    Image.new("CMYK", (20, 20)).save(folder / "images/0.jpg")
    Image.new("RGB", (20, 20)).save(folder / "images/1.jpg", format="GIF")
    sets = [_open(folder, [row("a", "0.jpg"), row("b", "0.jpg"), row("c", "1.jpg")])]
    notes = _audit(folder, *sets, check_images="decode").notes
    assert {key: count for key, (count, _) in notes.items()} == {
        ("a", "cmyk"): 2,
        ("a", "misnamed"): 1,
    }
    assert notes["a", "misnamed"][1].startswith("1.jpg: a GIF named .jpg")
    assert not _audit(folder, *sets).notes


def test_a_wrong_image_root_stays_a_file_of_problems(folder):
    records = _open(folder, [row(f"r{i}", f"gone/{i}.png") for i in range(50)])
    found = _audit(folder, records)
    assert len(found.problems) == 50
    assert found.problems[-1].id == "r49"
    assert [problem.id for problem in found.problems[3:5]] == ["r3", "r4"]
    with pytest.raises(IndexError):
        found.problems[50]
    found.write(folder / "report.jsonl")
    lines = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == list(range(1, 51))
    assert {line["kind"] for line in lines} == {"missing_image"}


BAD_ROWS = {
    "missing_image": row("x", "gone.png"),
    "image_path": row("x", "../0.png"),
    "corrupt_image": row("x", "damaged.png"),
    "oversized_image": row("x", "wide.png"),
    "image_count": row("x", "0.png") | {"image": ["0.png", "1.png"]},
    "image_field": row("x", "0.png") | {"image": 3},
    "empty_answer": row("x", None, answer=" \n"),
    "empty_question": row("x", None, question="\t"),
    "no_turns": {"id": "x", "conversations": []},
    "roles": {"id": "x", "conversations": row("x", None)["conversations"][:1]},
    "too_long": row("x", None, answer="A" * 500),
    "not_text": row("x", None, answer="\ud800"),
    "not_a_record": ["x"],
    "not_json": None,
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_every_reason_has_its_kind(folder, encoder, kind):
    (folder / "images/damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    Image.new("L", (2020, 2)).save(folder / "images/wide.png")
    path = folder / "a.jsonl"
    path.write_text("{'x'\n" if kind == "not_json" else json.dumps(BAD_ROWS[kind]) + "\n")
    config = DatasetConfig("a", str(path), str(folder / "images"))
    records = open_dataset(config, cache_dir=folder / "cache")
    found = _audit(folder, records, encoder=encoder, check_images="decode")
    assert {name: bad.count for name, bad in found.sets[0].kinds.items()} == {kind: 1}


def test_kinds_are_told_apart_and_unknown_ones_are_other():
    names = [kind.name for kind in (*KINDS, OTHER)]
    assert len(set(names)) == len(names)
    assert all(kind.remedy for kind in (*KINDS, OTHER))
    assert kind_of("the moon is full") is OTHER
    assert kind_of("no token of the answer is supervised; check").name == "no_target"
