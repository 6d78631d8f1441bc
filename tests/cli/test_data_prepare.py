"""``llava-mole data prepare`` as a user types it."""

import json
import subprocess
import sys
import types

import datasets
import pytest

from llava_mole.cli.main import main
from llava_mole.data.prepared.folder import load
from llava_mole.data.sources.sharegpt4v import FILES
from tests.data.helpers import row


def _prepare(*arguments):
    return main(["data", "prepare", *map(str, arguments)])


@pytest.fixture
def published(tmp_path):
    """ShareGPT4V's captions as published: two good rows, three bad ones."""
    rows = [row("a", "sam/images/a.jpg"), row("b", "coco/b.jpg"), row("c", None), row("d", "d.jpg")]
    rows[3]["conversations"][1]["value"] = ""
    rows.append(5)
    (tmp_path / "data/sharegpt4v").mkdir(parents=True)
    (tmp_path / "data/sam").mkdir()
    (tmp_path / "data/sharegpt4v" / FILES["pretrain"]).write_text(json.dumps(rows, indent=1))
    return tmp_path / "data"


def test_a_published_set_becomes_a_folder(published, tmp_path, capsys):
    output = tmp_path / "out"
    assert _prepare("sharegpt4v-pretrain", "--source", published, "--output", output) == 0
    shown = capsys.readouterr().out
    assert "2 records of sharegpt4v-pretrain" in shown
    assert f"image paths start from {published}" in shown
    assert "3 of 5 rows are no records and are left out" in shown
    assert "1  empty_answer: fill the answer in or remove the record" in shown
    place = published / "sharegpt4v" / FILES["pretrain"]
    line = place.read_text().split("\n").index('  "id": "c",')
    assert f"{place}:{line}: record 'c': image: 0 image(s)" in shown
    assert f"{output}/problems.jsonl" in shown
    assert "on_bad_record" in shown
    assert datasets.load_from_disk(str(output))["id"][:] == ["a", "b"]
    assert load(output).image_root == published
    # Done before: the same again, without the work.
    assert _prepare("sharegpt4v-pretrain", "--source", published, "--output", output) == 0
    assert "2 records of" in capsys.readouterr().out


def test_nothing_to_train_on_is_no_success(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("no JSON\n\n5\n")
    options = ("--source", tmp_path / "a.jsonl", "--output", tmp_path / "out")
    assert _prepare("llava", *options) == 1
    assert "2 of 2 rows are no records" in capsys.readouterr().out


def test_what_cannot_be_is_said_in_one_line(published, tmp_path, capsys):
    output = ("--output", tmp_path / "out")
    for arguments, reason in (
        (("llava", *output), "--source must say where the files are"),
        (("llava", "--source", tmp_path, *output), "is not a file; give LLaVA JSON"),
        (("llava", "--source", "x", "--groups", "vqa", *output), "llava has no option --groups"),
        (("pathvqa", "--source", "x", "--seed", 1, *output), "those it knows: --split"),
        (("quickstart", "--split", "train", *output), "quickstart has no option --split"),
        (("llava", "--source", "x", "--processes", 0, *output), "it must be at least 1"),
        (("sharegpt4v-instruct", "--source", published, *output), "no sharegpt4v_mix665k"),
        (
            ("llava", "--source", __file__, "--output", __file__ + "/out"),
            "--output: can't write to",
        ),
        (("quickstart", "--output", __file__), "--output: can't write to"),
    ):
        assert _prepare(*arguments) == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        _prepare("laion", *output)


def test_quickstart_calls_its_builder(monkeypatch, tmp_path):
    calls = []
    builder = types.ModuleType("quickstart")
    builder.build_all = lambda output, seed: calls.append((output, seed))
    monkeypatch.setitem(sys.modules, "llava_mole.data.builders.quickstart", builder)
    assert _prepare("quickstart", "--output", tmp_path, "--seed", 4) == 0
    assert calls == [(str(tmp_path), 4)]


def test_two_processes_from_the_command_line(tmp_path):
    rows = [row(f"r{i}", f"{i}.png") for i in range(20_001)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    command = [sys.executable, "-m", "llava_mole.cli.main", "data", "prepare", "llava"]
    options = ["--source", tmp_path / "a.json", "--output", tmp_path / "out", "--processes", "2"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "20,001 records of a in" in done.stdout
    assert "20,001 records, 0 problems" in done.stderr
    prepared = load(tmp_path / "out")
    assert (prepared.records, len(prepared.shards)) == (20_001, 2)
