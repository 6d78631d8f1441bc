"""Audits that are kept: when they serve, when they don't, and that none is ever half there."""

import dataclasses
import os
import shutil

import numpy as np
import pytest

from llava_mole.data.audit import audit as audit_module
from llava_mole.data.audit.audit import audit
from llava_mole.data.audit.cache import AuditCache
from llava_mole.data.build import open_data
from llava_mole.data.config import DataConfig, DatasetConfig, DomainConfig
from llava_mole.data.prepared.recordset import open_dataset
from llava_mole.data.tokens.encode import Encoder
from tests import tiny
from tests.data.helpers import VicunaLike, row, write_images, write_jsonl


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", 4)
    rows = [row(f"r{i}", f"{i % 4}.png", answer=f"A{i}") for i in range(12)]
    rows[3]["image"] = "missing.png"
    rows[5]["conversations"][1]["value"] = "long " * 100
    rows[7]["conversations"][1]["value"] = " "
    rows[9] = rows[8]
    write_jsonl(tmp_path / "a.jsonl", rows)
    return tmp_path


@pytest.fixture
def records(folder):
    config = DatasetConfig("a", str(folder / "a.jsonl"), str(folder / "images"))
    return open_dataset(config, cache_dir=folder / "cache")


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer, VicunaLike(), tiny.NUM_IMAGE_TOKENS, 200)


@pytest.fixture
def looked(monkeypatch):
    """The data sets that were looked at afresh."""
    names = []
    real = audit_module._look_at_all

    def spy(sets, *arguments):
        names.extend(records.name for records in sets)
        return real(sets, *arguments)

    monkeypatch.setattr(audit_module, "_look_at_all", spy)
    return names


def _audit(folder, records, encoder=None, reuse=True, **options):
    return audit([records], encoder=encoder, cache_dir=folder / "cache", reuse=reuse, **options)


def test_what_is_read_back_is_what_was_found(folder, records, encoder, looked):
    first = _audit(folder, records, encoder)
    again = _audit(folder, records, encoder)
    assert looked == ["a"]
    assert [(p.line, p.dataset) for p in again.problems] == [(8, "a"), (4, "a"), (6, "a")]
    assert again.problems[:] == first.problems[:]
    for one, other in zip(first.sets, again.sets, strict=True):
        for field in dataclasses.fields(one):
            if field.name != "problems":
                np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name))
    assert again.lengths[0].dtype == np.int32
    assert again.keep[0].dtype == np.int64
    assert again.duplicates == {("a", "a"): 1}


def test_a_fresh_look_is_asked_for(folder, records, looked):
    _audit(folder, records)
    _audit(folder, records, reuse=False)
    assert looked == ["a", "a"]


def test_everything_that_matters_is_in_the_key(folder, records, encoder, looked):
    shutil.copytree(folder / "images", folder / "other")
    others = [
        (records, None),
        (records, dataclasses.replace(encoder, max_length=150)),
        (records, dataclasses.replace(encoder, overlong="drop_turns")),
        (records, dataclasses.replace(encoder, num_image_tokens=5)),
        (dataclasses.replace(records, image_root=folder / "other"), encoder),
        (dataclasses.replace(records, stamp="other"), encoder),
        (dataclasses.replace(records, name="b"), encoder),
    ]
    _audit(folder, records, encoder)
    for number, (other, other_encoder) in enumerate(others, start=2):
        _audit(folder, other, other_encoder)
        assert len(looked) == number
    _audit(folder, dataclasses.replace(records, weight=3.0, domain="d"), encoder)
    assert len(looked) == len(others) + 1


def test_decoding_serves_looking_but_not_the_reverse(folder, records, looked):
    _audit(folder, records)
    (folder / "images/2.png").write_bytes(b"damaged")
    decoded = _audit(folder, records, check_images="decode")
    assert len(looked) == 2
    assert _audit(folder, records).problems[:] == decoded.problems[:]
    assert len(looked) == 2


def test_a_repaired_image_ends_the_audit_that_missed_it(folder, records, looked):
    assert len(_audit(folder, records).problems) == 2
    shutil.copy(folder / "images/0.png", folder / "images/missing.png")
    assert len(_audit(folder, records).problems) == 1
    assert looked == ["a", "a"]
    # One that goes missing later is met in training.
    (folder / "images/missing.png").unlink()
    assert len(_audit(folder, records).problems) == 1
    assert looked == ["a", "a"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "no problems", "empty"])
def test_a_damaged_entry_is_made_anew(folder, records, looked, damage):
    first = _audit(folder, records)
    (table,) = (folder / "cache/audits").glob("*.npz")
    (problems,) = (folder / "cache/audits").glob("*.jsonl")
    if damage == "cut":
        table.write_bytes(table.read_bytes()[:-100])
    elif damage == "garbage":
        table.write_bytes(os.urandom(500))
    elif damage == "empty":
        table.write_bytes(b"")
    else:
        problems.unlink()
    again = _audit(folder, records)
    assert again.problems[:] == first.problems[:]
    assert looked == ["a", "a"]
    _audit(folder, records)
    assert len(looked) == 2


def test_an_interrupted_audit_leaves_nothing(folder, records, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("llava_mole.data.audit.look.Look.__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        _audit(folder, records)
    assert not list((folder / "cache/audits").iterdir())


def test_the_log_says_that_an_audit_served_and_how_old_it_is(folder, records, caplog):
    _audit(folder, records)
    with caplog.at_level("INFO"):
        _audit(folder, records)
    assert "data set 'a': checked 0 s ago" in caplog.text
    assert "llava-mole data check" in caplog.text


def test_a_run_looks_once_and_its_mixture_stays(folder, encoder, looked):
    dataset = DatasetConfig("a", str(folder / "a.jsonl"), str(folder / "images"), resample=20)
    config = DataConfig(
        {"d": DomainConfig(1, [dataset])},
        on_bad_record="skip",
        max_bad_fraction=0.5,
        cache_dir=str(folder / "cache"),
    )
    runs = [open_data(config, encoder, seed=1, report=folder / "bad.jsonl") for _ in range(2)]
    assert looked == ["a"]
    assert np.array_equal(runs[0].mixture.epoch(0), runs[1].mixture.epoch(0))
    assert runs[1].mixture.counts(0) == {"a": 20}
    samples = runs[1].samples(encoder, lambda image: None)
    assert len(runs[1].lengths[0]) == len(runs[1].num_images[0]) == len(samples) == 9
    assert runs[1].num_images[0].tolist() == [1] * 9


def test_only_the_sets_that_changed_are_looked_at(folder, records, looked):
    other = write_jsonl(folder / "b.jsonl", [row("b", "1.png")])
    config = DatasetConfig("b", str(other), str(folder / "images"))
    sets = [open_dataset(config, cache_dir=folder / "cache"), records]
    _audit(folder, records)
    result = audit(sets, cache_dir=folder / "cache", reuse=True)
    assert looked == ["a", "b"]
    assert [found.name for found in result.sets] == ["b", "a"]
    assert AuditCache(folder / "cache", None, "exists").load(sets[0]).name == "b"
