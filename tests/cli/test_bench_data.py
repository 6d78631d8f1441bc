"""The benchmark on two thousand records: it measures the real thing, cleans up, tells the truth."""

import collections
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_mole.bench import data, figures, memory, steps, synthetic
from llava_mole.bench.images import images_step
from llava_mole.cli.main import main
from tests import tiny
from tests.cli import children

RECORDS = 2000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder, JSON files and the small model of made-up records."""
    folder = tmp_path_factory.mktemp("bench")
    files = {name: str(path) for name, path in synthetic.write(folder / "raw", RECORDS).items()}
    return folder, files


def test_records_have_the_papers_shape(made):
    folder, files = made
    rows = [row for file in files.values() for row in json.loads(Path(file).read_text())]
    assert len(rows) == RECORDS
    images = [[i] if isinstance(i := row.get("image", []), str) else i for row in rows]
    slots = [row["conversations"][0]["value"].count("<image>") for row in rows]
    assert slots == list(map(len, images))
    kinds = collections.Counter(row["source"] for row in rows)
    assert set(kinds) == {kind for kind, _ in (*synthetic.GENERAL, *synthetic.DOCUMENT)}
    for path in set(itertools.chain(*images)):
        assert (folder / "raw" / path).is_file()
    texts = ["".join(turn["value"] for turn in row["conversations"]) for row in rows]
    assert len(set(texts)) > 0.99 * RECORDS
    assert any(len(row["conversations"]) > 4 for row in rows)
    assert os.path.getsize(files["general"]) / (0.6 * RECORDS) > 800


def test_the_same_seed_writes_the_same_bytes(made, tmp_path):
    _, files = made
    for name, path in synthetic.write(tmp_path, RECORDS).items():
        assert path.read_bytes() == Path(files[name]).read_bytes()


def test_steps_call_the_real_functions(made, tmp_path):
    folder, files = made
    model = data._small_model(tmp_path, files)
    prepared = {name: str(tmp_path / "p" / name) for name in files}
    result = steps.prepare_step(files, str(tmp_path / "p"), 1, None)
    assert result["records"] == RECORDS
    assert result["seconds"] > 0
    counted = steps.prepare_step(files, str(tmp_path / "q"), 1, model)
    assert counted["records"] == RECORDS
    looked = steps.check_step(prepared, str(folder / "raw"), str(tmp_path / "cache"), 1)
    assert (looked["records"], looked["problems"]) == (RECORDS, 0)
    times = steps.open_step(prepared, str(folder / "raw"), str(tmp_path / "cache"), model)
    assert set(times) == {"imports", "processor", "opening", "batch"}
    alone = steps.lengths_step(files, 500, model)
    assert alone["records"] == 1000
    encoder = steps.encoder_of(model)
    assert encoder.num_image_tokens == 576
    assert alone["tokens"] > 20 * alone["records"]


def test_an_image_that_is_gone_is_a_problem_to_check(made, tmp_path):
    _, files = made
    steps.prepare_step(files, str(tmp_path / "p"), 1, None)
    prepared = {name: str(tmp_path / "p" / name) for name in files}
    with pytest.raises(ValueError, match="No such file"):
        steps.check_step(prepared, str(tmp_path), str(tmp_path / "cache"), 1)


def test_images_are_decoded_by_both(tmp_path):
    paths = synthetic.write_images(tmp_path, 3, size=(640, 480))
    with Image.open(tmp_path / paths[0]) as image:
        assert (image.format, image.size) == ("JPEG", (640, 480))
        # Neither flat nor noise: a photograph's neighbours are alike.
        pixels = np.asarray(image, dtype=float)
        assert 20 < pixels.std() < 90
        assert np.abs(np.diff(pixels, axis=0)).mean() < 0.5 * pixels.std()
    result = images_step(str(tmp_path), paths, rounds=2)
    assert 5 < result["ours"] < 3000
    assert result["ratio"] == pytest.approx(result["pil"] / result["ours"], rel=0.5)


def test_the_peak_is_the_whole_trees():
    value, alone = memory.in_fresh_process(children.hold, 64, 0)
    assert value == ord("1")
    _, both = memory.in_fresh_process(children.hold, 64, 1)
    assert 64 * 2**20 < alone.anonymous <= alone.total
    assert both.anonymous - alone.anonymous > 60 * 2**20


def test_cpu_time_counts_workers_of_a_fork_server():
    spent, peak = memory.in_fresh_process(children.burn_in_a_fork_server, 1.5)
    assert spent >= 3
    assert 0.8 * spent < peak.cpu < spent + 10


def test_a_step_that_fails_says_why():
    with pytest.raises(RuntimeError, match="the reason"):
        memory.in_fresh_process(children.fail)
    with pytest.raises(RuntimeError, match="exit code 3"):
        memory.in_fresh_process(children.die)


def test_figures_know_whether_they_met_their_target():
    measured = [
        figures.Figure("fast", 10.0, "records/s", 5.0, most=False),
        figures.Figure("slow", 10.0, "s", 5.0),
        figures.Figure("other", 10.0, "s"),
    ]
    assert [figure.met for figure in measured] == [True, False, None]
    lines = figures.table(measured).splitlines()
    assert ">= 5 records/s" in lines[1]
    assert lines[1].endswith("yes")
    assert "<= 5 s" in lines[2]
    assert lines[2].endswith("NO")


def test_the_command_measures_prints_and_removes_what_it_made(tmp_path, capsys):
    words = ["bench", "data", "--records", str(RECORDS), "--processes", "1", "--only", "check"]
    words += ["--work-dir", str(tmp_path), "--json", str(tmp_path / "out" / "a.json")]
    status = main(words)
    out, err = capsys.readouterr()
    assert "check, speed" in out
    assert "prepare" not in out.splitlines()[1]
    assert "GB are free" in err
    values = json.loads((tmp_path / "out" / "a.json").read_text())
    assert values["records"] == RECORDS
    missed = any(figure["met"] is False for figure in values["figures"])
    assert status == int(missed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--only", "nothing"), "--only nothing"),
        (("--records", "10"), "--records"),
        (("--work-dir", "/no/such/folder"), "no such folder"),
        (("--records", str(10**13)), "GB are free"),
        (("--config", "/no/such.yaml"), "/no/such.yaml"),
    ],
)
def test_errors_name_what_is_wrong(words, expected, capsys):
    assert main(["bench", "data", *words]) == 2
    assert expected in capsys.readouterr().err


def test_a_runs_tokenizer_counts_lengths(tmp_path, made):
    _, files = made
    section = tiny.tiny_model_section(tmp_path)
    alone = steps.lengths_step({"general": files["general"]}, 50, section)
    assert alone["records"] == 50
    assert alone["tokens"] > 50 * 400
