"""``llava-mole data stats`` on a file, on a prepared folder and on a run's mixture."""

import json

import pytest
import yaml
from PIL import Image

from llava_mole.cli.main import main
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.sources.llava import LlavaSource
from tests.analysis import helpers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stats")
    helpers.make(folder)
    return folder


def stats(*words) -> int:
    return main([str(word) for word in ("data", "stats", *words)])


def test_a_file_without_a_model(folder, tmp_path, capsys):
    words = (folder / "set.jsonl", "--cache-dir", folder / "cache", "--json", tmp_path / "a.json")
    assert stats(*words) == 0
    out = capsys.readouterr().out
    assert "no lengths" in out
    whole, b, a = json.loads((tmp_path / "a.json").read_text())["datasets"]
    assert (whole["samples"], whole["bad"], whole["text_only"], whole["images"]) == (5, 1, 1, 5)
    assert (b["source"], b["samples"], a["source"], a["samples"]) == ("b", 4, "a", 1)


def test_a_prepared_folder_has_the_lengths_it_was_prepared_with(folder, tmp_path, capsys):
    encoder = helpers.encoder(max_length=2048)
    prepare(LlavaSource(str(folder / "set.jsonl"), "x"), tmp_path / "p", encoder=encoder)
    assert stats(tmp_path / "p", "--json", tmp_path / "a.json") == 0
    whole = json.loads((tmp_path / "a.json").read_text())["datasets"][0]
    records = helpers.opened(folder / "set.jsonl", folder / "cache")
    lengths = [len(encoder(record).input_ids) for record in records.records()]
    assert whole["tokens"] == sum(lengths)
    assert whole["lengths"]["max"] == max(lengths)


def test_a_mixture_with_its_counts_and_batches(folder, tmp_path, capsys):
    words = ["--config", folder / "run.yaml", "--ranks", "1", "--epochs", "4"]
    words += ["--plot", tmp_path / "a.png", "--json", tmp_path / "a.json"]
    assert stats(*words) == 0
    out = capsys.readouterr().out
    figures = json.loads((tmp_path / "a.json").read_text())
    whole = figures["datasets"][0]
    # Good are the two with images and the text; too long, without image and slotless are not.
    assert (whole["samples"], whole["bad"]) == (3, 3)
    assert [epoch["mine"] for epoch in figures["epochs"]] == [1, 2, 1, 2]
    assert "in epoch 3" in out
    assert figures["batching"]["useful_tokens"] == 1
    assert "useful tokens" in out
    assert whole["supervised"] > 0
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 300


def test_padding_of_the_runs_batches_is_counted(folder, tmp_path):
    values = yaml.safe_load((folder / "run.yaml").read_text())
    values["data"]["domains"]["d"]["weight"] = 1
    values["train"] = {"global_batch_size": 2, "per_device_train_batch_size": 2}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    words = ("--config", tmp_path / "run.yaml", "--ranks", "1", "--json", tmp_path / "a.json")
    assert stats(*words) == 0
    result = json.loads((tmp_path / "a.json").read_text())["batching"]
    encoder = helpers.encoder()
    records = helpers.opened(folder / "set.jsonl", folder / "cache")
    ids = ("<i>&'\"", "two", "text")
    lengths = [len(encoder(r).input_ids) for r in records.records() if r.id in ids]
    pairs = [(a, b) for a in lengths for b in lengths if a != b]
    assert result["useful_tokens"] in [pytest.approx((a + b) / (2 * max(a, b))) for a, b in pairs]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "give a FILE, --config RUN.yaml, or both"),
        (("a.jsonl",), "a.jsonl"),
        (("a.jsonl", "--ranks", "2"), "--ranks needs --config"),
        (("--config", "{run}", "--ranks", "0"), ">= 1"),
        (("--config", "{run}", "--image-root", "."), "--image-root"),
        (("--config", "{run}", "--plot", "a.gif"), ".png"),
    ],
)
def test_errors_name_what_is_wrong(folder, capsys, words, expected):
    assert stats(*(word.format(run=folder / "run.yaml") for word in words)) == 2
    assert expected in capsys.readouterr().err
