import argparse
import json

import pytest

from llava_mole.cli import data as command
from tests.data.helpers import row, write_images, write_jsonl


def _run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def file(tmp_path):
    write_images(tmp_path / "images", 3)
    return write_jsonl(tmp_path / "a.jsonl", [row(f"r{i}", f"{i}.png") for i in range(3)])


def test_check_of_a_good_file(file, tmp_path, capsys):
    options = ("--image-root", tmp_path / "images", "--cache-dir", tmp_path / "cache")
    assert _run("check", file, "--decode", *options) == 0
    assert "no bad records" in capsys.readouterr().out


def test_check_of_an_empty_file_is_no_all_clear(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"empty\.jsonl.*no records"):
        _run("check", tmp_path / "empty.jsonl", "--cache-dir", tmp_path / "cache")


def test_check_lists_and_reports_bad_records(file, tmp_path, capsys):
    (tmp_path / "images/1.png").unlink()
    (tmp_path / "images/2.png").write_text("no image")
    options = ("--image-root", tmp_path / "images", "--cache-dir", tmp_path / "cache")
    assert _run("check", file, *options) == 1
    assert "1 bad record(s)" in capsys.readouterr().out
    report = tmp_path / "bad.jsonl"
    assert _run("check", file, "--decode", "--report", report, *options) == 1
    shown = capsys.readouterr().out
    assert f"bad: {file}:2: record 'r1': image '1.png': No such file" in shown
    assert [json.loads(line)["id"] for line in report.read_text().splitlines()] == ["r1", "r2"]


def test_check_needs_exactly_one_thing_to_check(file):
    with pytest.raises(ValueError, match="either a FILE or --config"):
        _run("check")
    with pytest.raises(ValueError, match="either a FILE or --config"):
        _run("check", file, "--config", "x.yaml")
    with pytest.raises(ValueError, match="not a file"):
        _run("check", "nowhere.jsonl")
