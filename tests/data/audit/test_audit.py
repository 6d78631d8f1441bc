import json

import numpy as np
import pytest

from llava_mole.data.audit.audit import audit
from llava_mole.data.audit.report import text
from llava_mole.data.build import open_data
from llava_mole.data.config import DataConfig, DatasetConfig, DomainConfig, EvalConfig
from llava_mole.data.prepared.recordset import open_dataset
from llava_mole.data.tokens.encode import Encoder
from tests import tiny
from tests.data.helpers import VicunaLike, row, write_images, write_jsonl

BAD_LINES = {3: "1 image", 5: "missing.png", 7: "would not fit", 8: "not a JSON", 9: "..", 10: "em"}


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "images", 4)
    rows = [row(f"r{line}", f"{line % 4}.png", answer=f"A{line}") for line in range(1, 13)]
    rows[2]["conversations"][0]["value"] = "no slot"
    rows[4]["image"] = "missing.png"
    rows[6]["conversations"][1]["value"] = "long " * 100
    rows[8]["image"] = "../images/0.png"
    rows[9]["conversations"][1]["value"] = "  "
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    lines = path.read_text().splitlines()
    lines[7] = lines[7][:-5]
    path.write_text("\n".join(lines) + "\n")
    write_jsonl(tmp_path / "good.jsonl", [row(f"g{i}", f"{i}.png") for i in range(4)])
    return tmp_path


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer, VicunaLike(), tiny.NUM_IMAGE_TOKENS, 200)


def _config(folder, **options):
    def dataset(name):
        return DatasetConfig(name, str(folder / f"{name}.jsonl"), str(folder / "images"))

    domains = {
        "one": DomainConfig(2, [dataset("a")]),
        "two": DomainConfig(0.5, [dataset("good")]),
    }
    defaults = {"domains": domains, "cache_dir": str(folder / "cache")}
    return DataConfig(**(defaults | options))


def test_skip_lists_every_bad_record_and_keeps_the_others(folder, encoder):
    config = _config(folder, on_bad_record="skip", max_bad_fraction=0.5)
    opened = open_data(config, encoder, seed=0, report=folder / "run/bad.jsonl")
    kept = [opened.sets[0].record(int(row)).line for row in opened.audit.keep[0]]
    assert kept == [1, 2, 4, 6, 11, 12]
    report = [json.loads(line) for line in (folder / "run/bad.jsonl").read_text().splitlines()]
    assert {item["line"] for item in report} == set(BAD_LINES)
    for item in report:
        assert item["dataset"] == "a"
        assert item["file"] == str(folder / "a.jsonl")
        assert BAD_LINES[item["line"]] in item["reason"]
        assert item["id"] == ("" if item["line"] == 8 else f"r{item['line']}")
    assert opened.mixture.counts(0) == {"a": 12, "good": 2}
    assert opened.audit.counts == {("a", "a"): 6, ("a", "(bad)"): 6, ("good", "good"): 4}
    again = open_data(config, encoder, seed=0, report=folder / "again.jsonl")
    assert (folder / "again.jsonl").read_text() == (folder / "run/bad.jsonl").read_text()
    assert np.array_equal(again.mixture.epoch(0), opened.mixture.epoch(0))


def test_fail_names_the_first_and_the_count(folder, encoder):
    with pytest.raises(ValueError, match=r"6 bad record\(s\) of 16") as caught:
        open_data(_config(folder), encoder, seed=0, report=folder / "bad.jsonl")
    message = str(caught.value)
    assert f"{folder / 'a.jsonl'}:3: record 'r3': image: 1 image(s) but 0 <image>" in message
    assert "and 1 more, all listed in" in message
    assert "--on-bad-record skip" in message


def test_too_many_bad_records_stop_the_run(folder, encoder):
    config = _config(folder, on_bad_record="skip", max_bad_fraction=0.4)
    with pytest.raises(ValueError, match=r"'a': 6 of 12 .*50\.0%.*max_bad_fraction 40\.0%"):
        open_data(config, encoder, seed=0)


def test_a_set_with_nothing_left_stops_the_run(folder):
    write_jsonl(folder / "a.jsonl", [row("x", "missing.png")])
    config = _config(folder, on_bad_record="skip", max_bad_fraction=1.0)
    with pytest.raises(ValueError, match="'a': no record to train on"):
        open_data(config, None, seed=0)


def test_decoding_finds_what_a_stat_cannot(folder):
    (folder / "images/2.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    config = DatasetConfig("good", str(folder / "good.jsonl"), str(folder / "images"))
    sets = [open_dataset(config, cache_dir=folder / "cache")]
    assert not audit(sets, cache_dir=folder / "cache").problems
    found = audit(sets, check_images="decode", cache_dir=folder / "cache").problems
    assert [(item.line, item.id) for item in found] == [(3, "g2")]
    assert "2.png" in found[0].reason


def test_dropped_turns_are_counted(folder, tokenizer):
    long = row("x", None)
    long["conversations"] += [{"from": "human", "value": "Q" * 300}, long["conversations"][1]]
    write_jsonl(folder / "good.jsonl", [long, row("y", None)])
    config = DatasetConfig("good", str(folder / "good.jsonl"))
    sets = [open_dataset(config, cache_dir=folder / "cache")]
    encoder = Encoder(tokenizer, VicunaLike(), 4, 100, "drop_turns")
    result = audit(sets, encoder=encoder, cache_dir=folder / "cache")
    assert result.shortened == {"good": 1}
    assert "1 sample(s) too long" in text(result)
    assert not result.problems


def test_unknown_paths(folder):
    missing = DatasetConfig("x", str(folder / "nowhere.jsonl"))
    with pytest.raises(ValueError, match=r"data set 'x': .*nowhere.jsonl is not a file"):
        open_dataset(missing, cache_dir=folder / "cache")
    no_root = DatasetConfig("x", str(folder / "good.jsonl"), str(folder / "no"))
    with pytest.raises(ValueError, match=r"data set 'x': image_root .* is not a folder"):
        open_dataset(no_root, cache_dir=folder / "cache")
    with pytest.raises(ValueError, match="domains is empty"):
        open_data(DataConfig(), None, 0)


def test_conversions_are_cached_by_content(folder):
    config = DatasetConfig("good", str(folder / "good.jsonl"), str(folder / "images"))
    first = open_dataset(config, cache_dir=folder / "cache")
    again = open_dataset(config, cache_dir=folder / "cache")
    assert (again.stamp, again.rows[:]) == (first.stamp, first.rows[:])
    write_jsonl(folder / "good.jsonl", [row("new", "0.png")])
    assert [r.id for r in open_dataset(config, cache_dir=folder / "cache").records()] == ["new"]
    assert [r.id for r in first.records()] == ["g0", "g1", "g2", "g3"]
    assert not list((folder / "cache").glob(".partial*"))


def test_an_interrupted_conversion_leaves_nothing_behind(folder):
    path = folder / "cut.json"
    path.write_text(json.dumps([row("a"), row("b")])[:-10])
    config = DatasetConfig("cut", str(path), str(folder / "images"))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cut\.json:1"):
            open_dataset(config, cache_dir=folder / "cache")
    assert not list((folder / "cache").iterdir())


def test_records_survive_arrow(folder):
    rows = [
        {**row("1", None, "Q\u2003", "照片 </s>"), "task": "vqa", "source": "x"},
        {
            "id": "2",
            "image": ["0.png", "1.png"],
            "conversations": [
                {"from": "human", "value": "<image><image>"},
                {"from": "gpt", "value": "None"},
            ],
        },
    ]
    write_jsonl(folder / "good.jsonl", rows)
    records = open_dataset(
        DatasetConfig("good", str(folder / "good.jsonl")), cache_dir=folder / "cache"
    )
    one, two = records.records()
    assert one == records.record(0)
    assert (one.task, one.source, one.images) == ("vqa", "x", ())
    assert [turn.content for turn in one.turns] == ["Q\u2003", "照片 </s>"]
    assert (two.images, two.line, two.source) == (("0.png", "1.png"), 2, "good")


def test_weights_multiply_as_decimals(folder):
    config = DatasetConfig("good", str(folder / "good.jsonl"), weight=0.1)
    assert open_dataset(config, "d", 0.7, folder / "cache").weight == 0.07


def test_held_out_sets_are_audited_and_numbered_on(folder, encoder):
    held_out = DatasetConfig("held_out", str(folder / "good.jsonl"), str(folder / "images"))
    config = _config(
        folder, on_bad_record="skip", max_bad_fraction=0.5, eval=EvalConfig([held_out], 3)
    )
    opened = open_data(config, encoder, seed=0)
    assert opened.names == ["a", "good", "held_out"]
    samples = opened.eval_samples(encoder, lambda image: None, max_samples=3)
    assert len(samples["held_out"]) == 3
    assert samples["held_out"].dataset_id == 2


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: DataConfig(on_bad_record="ignore"), "on_bad_record is 'ignore'"),
        (lambda: DataConfig(check_images="x"), "check_images"),
        (lambda: DataConfig(overlong="x"), "overlong"),
        (lambda: DataConfig(max_bad_fraction=2), "max_bad_fraction"),
        (lambda: DomainConfig(-1), "weight is -1"),
        (lambda: DatasetConfig("", "x"), "needs a name"),
        (lambda: DatasetConfig("a", "x", weight=float("nan")), "weight of data set 'a'"),
        (lambda: DataConfig({"d": DomainConfig()}), "no datasets"),
        (lambda: DataConfig({"d": DomainConfig(1, [DatasetConfig("a", "x")] * 2)}), "two data"),
    ],
)
def test_configs_that_cannot_be(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()
