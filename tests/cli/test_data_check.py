"""``llava-mole data check``: what it prints and writes, and its exit status."""

import argparse
import json

import pytest
import yaml

from llava_mole.cli.data import check
from llava_mole.data.build import open_data
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.sources.llava import LlavaSource
from tests import tiny
from tests.data.helpers import row, write_images, write_jsonl


def _run(*arguments):
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def file(tmp_path):
    write_images(tmp_path / "images", 3)
    rows = [row(f"r{i}", f"{i % 3}.png", answer=f"A{i}") for i in range(10)]
    return write_jsonl(tmp_path / "a.jsonl", rows)


@pytest.fixture
def options(tmp_path):
    return ("--image-root", tmp_path / "images", "--cache-dir", tmp_path / "cache")


@pytest.fixture
def config(file, tmp_path):
    values = {
        "model": {**tiny.tiny_model_section(tmp_path), "model_max_length": 300},
        "data": {
            "domains": {
                "d": {
                    "datasets": [
                        {"name": "a", "path": str(file), "image_root": str(tmp_path / "images")}
                    ]
                },
                "off": {"weight": 0, "datasets": [{"name": "gone", "path": "nowhere.json"}]},
            },
            "cache_dir": str(tmp_path / "cache"),
        },
        "stage": "pretrain",
        "output_dir": str(tmp_path / "run"),
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_good_file(file, options, capsys):
    assert _run(file, "--decode", *options) == 0
    shown = capsys.readouterr().out
    assert "no bad records" in shown
    header, counts = shown.splitlines()[:2]
    assert " ".join(header.split()) == ("data set source records images text only duplicates bad")
    assert counts.split() == ["a.jsonl", "a.jsonl", "10", "10", "0", "0", "0"]


def test_an_empty_file_is_no_all_clear(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"empty\.jsonl.*no records"):
        _run(tmp_path / "empty.jsonl", "--cache-dir", tmp_path / "cache")


def test_bad_records_are_shown_by_kind_with_their_remedy(file, options, tmp_path, capsys):
    (tmp_path / "images/1.png").unlink()
    (tmp_path / "images/2.png").write_text("no image")
    report, summary = tmp_path / "bad.jsonl", tmp_path / "check.json"
    written = ("--report", report, "--json", summary)
    assert _run(file, *options) == 1
    assert "3 x missing_image: fetch the images" in capsys.readouterr().out
    assert _run(file, "--decode", *written, *options) == 1
    shown = capsys.readouterr().out
    assert "3 x missing_image" in shown
    assert "3 x corrupt_image" in shown
    assert f"bad: {file}:2: record 'r1': image '1.png': No such file" in shown
    assert "6 bad record(s), listed in" in shown
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["r1", "r2", "r4", "r5", "r7", "r8"]
    found = json.loads(summary.read_text())
    assert (found["version"], found["records"], found["bad"]) == (1, 4, 6)
    assert found["settings"]["check_images"] == "decode"
    (data_set,) = found["data_sets"]
    assert data_set["kinds"]["missing_image"]["count"] == 3
    assert data_set["kinds"]["corrupt_image"]["examples"][0].startswith(f"{file}:3: record 'r2'")
    assert data_set["sources"]["a.jsonl"] == {
        **{"records": 4, "bad": 6, "images": 4, "text_only": 0, "duplicates": 0, "tokens": None}
    }


@pytest.mark.parametrize(("limit", "status"), [("0.1", 0), ("0.09", 1)])
def test_few_bad_records_can_be_borne(file, options, tmp_path, limit, status, capsys):
    rows = [row(f"r{i}", f"{i % 3}.png") for i in range(9)] + [row("bad", None, answer="")]
    write_jsonl(file, rows)
    skip = ("--on-bad-record", "skip", "--max-bad-fraction", limit)
    assert _run(file, *options, *skip) == status
    assert "10.00% of a data set" in capsys.readouterr().out
    assert _run(file, *options) == 1


def test_duplicates_and_notes_are_no_faults(file, options, capsys):
    write_jsonl(file, [row("one", "0.png"), row("two", "0.png")])
    assert _run(file, *options) == 0
    shown = capsys.readouterr().out
    assert "1 record(s) repeat an earlier one" in shown
    assert f"{file}:2: record 'two' repeats {file}:1: record 'one'" in shown


def test_a_prepared_folder(file, options, tmp_path, capsys):
    source = LlavaSource(str(file), "a")
    prepare(source, tmp_path / "prepared", image_root=tmp_path / "images")
    assert _run(tmp_path / "prepared", *options[2:]) == 0
    assert "prepared  a" in capsys.readouterr().out


def test_a_run_config_with_lengths_saves_the_run_its_look(config, capsys, monkeypatch):
    assert _run("--config", config) == 0
    assert "tokens min" in capsys.readouterr().out
    from llava_mole.cli.arguments import encoder_of
    from llava_mole.config import load
    from llava_mole.train.config import RunConfig

    run = load(RunConfig, config)
    encoder = encoder_of(run)
    monkeypatch.setattr("llava_mole.data.audit.audit._look_at_all", None)
    assert len(open_data(run.data.drawn(), encoder, seed=0).audit.keep[0]) == 10


def test_images_are_looked_at_as_the_run_will(config, tmp_path, capsys):
    (tmp_path / "images/2.png").write_text("no image")
    assert _run("--config", config) == 0
    values = yaml.safe_load(config.read_text())
    values["data"]["check_images"] = "decode"
    config.write_text(yaml.safe_dump(values))

    assert _run("--config", config) == 1

    assert "3 x corrupt_image" in capsys.readouterr().out


def test_lengths_of_a_config_for_one_file(file, config, options, capsys):
    write_jsonl(file, [row("long", "0.png", answer="A" * 400), row("short", "0.png")])
    assert _run(file, *options) == 0
    assert _run(file, "--config", config, *options) == 1
    assert "1 x too_long: raise model_max_length" in capsys.readouterr().out
    assert _run("--config", config, "--no-lengths") == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give a FILE, --config RUN.yaml, or both"),
        (["--config", "x.yaml", "--image-root", "x"], "--image-root goes with a FILE"),
        (["a.json", "--no-lengths"], "--no-lengths goes with --config"),
        (["a.json", "--max-bad-fraction", "2"], r"must be in \[0, 1\]"),
        (["nowhere.jsonl"], "nowhere.jsonl is not a file"),
    ],
)
def test_what_cannot_be_meant(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        _run(*arguments)


def test_text_from_a_data_set_cannot_move_the_cursor(file, options, capsys):
    bad = row("\x1b[2Jx", None, answer="") | {"source": "\x1b]0;owned\x07"}
    write_jsonl(file, [bad, bad | {"conversations": row("", None)["conversations"]}])
    assert _run(file, *options) == 1
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "x1b]0;owned" in shown
