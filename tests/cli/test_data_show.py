"""``llava-mole data show`` from files to the terminal and to a page."""

import pytest

from llava_mole.cli.main import main
from tests.analysis import helpers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    helpers.make(folder)
    return folder


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)


def show(folder, *words) -> int:
    config = ["--config", folder / "run.yaml"]
    return main([str(word) for word in ("data", "show", *config, *words)])


def test_a_sample_as_the_model_sees_it(folder, capsys, tmp_path):
    assert show(folder, "--html", tmp_path / "a.html") == 0
    out = capsys.readouterr().out
    assert f"{folder}/set.jsonl:1" in out
    assert "<image> x4" in out
    answer = helpers.ANSWER.replace("</s>", "< /s>").replace("<image>", "< image>")
    assert f"ASSISTANT:[[ {answer}</s>]]" in out
    assert "\x1b" not in out
    assert "0.png: 30 x 20, the model sees 28 x 28" in out
    assert "<!doctype html>" in (tmp_path / "a.html").read_text()


def test_colours_and_thumbnails_where_they_are_wanted(folder, capsys, monkeypatch):
    assert show(folder, "--color", "always", "--index", "1") == 0
    out = capsys.readouterr().out
    assert "\x1b[1;32m Same.</s>\x1b[0m" in out
    assert out.count("▀") >= 2 * 36 * 17
    assert "[[" not in out.replace("\x1b[", "")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert show(folder) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line", "status"),
    [
        ((), 1, 0),
        (("--index", "1"), 2, 0),
        (("--id", "two"), 2, 0),
        (("--line", "2"), 2, 0),
        (("--line", "set.jsonl:2"), 2, 0),
        (("--source", "b"), 2, 0),
        (("--id", "long"), 3, 1),
        (("--id", "gone"), 4, 1),
        (("--id", "slotless"), 5, 1),
        (("--line", "5"), 5, 1),
        (("--id", "text", "--dataset", "mine"), 6, 0),
    ],
)
def test_which_one(folder, capsys, words, line, status):
    assert show(folder, *words) == status
    out = capsys.readouterr().out
    assert out.startswith(f"{folder}/set.jsonl:{line}\n")
    assert ("cannot be trained on: " in out) == bool(status)


def test_a_file_instead_of_the_configs_data_set(folder, capsys, tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_bytes((folder / "set.jsonl").read_bytes())
    words = (path, "--image-root", folder, "--cache-dir", tmp_path / "cache", "--id", "two")
    assert show(folder, *words) == 0
    assert capsys.readouterr().out.startswith(f"{path}:2\n")


def test_random_is_the_seeds(folder, capsys):
    seen = []
    for seed in (*range(12), 0):
        show(folder, "--random", "--seed", seed)
        seen.append(capsys.readouterr().out)
    assert seen[-1] == seen[0]
    assert len(set(seen)) > 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--index", "9"), "0 to 4"),
        (("--id", "nobody"), "no record with id 'nobody'"),
        (("--source", "nowhere"), "no record with source 'nowhere'"),
        (("--line", "77"), "no record begins in line 77"),
        (("--line", "x"), "N or FILE:N"),
        (("--line", "other.jsonl:2"), "other.jsonl:2"),
        (("--dataset", "yours"), "one of mine"),
        (("some.jsonl", "--dataset", "mine"), "not both"),
        (("some.jsonl",), "some.jsonl"),
        (("--seed", "1"), "--random"),
        (("--image-root", "."), "--image-root"),
    ],
)
def test_errors_name_what_is_wrong(folder, capsys, words, expected):
    assert show(folder, *words) == 2
    assert expected in capsys.readouterr().err
