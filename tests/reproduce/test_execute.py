"""Runs end to end on a tiny model: side by side, killed and resumed, failing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reproduce.tiny_scale import write_experiments

ROWS = ("llava-mix-1-1-0", "llava-mole-1-1-0")


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    return write_experiments(tmp_path_factory.mktemp("execute"))


def command(experiments, output, *more):
    words = ["reproduce", "--scale", "tiny", "--experiments", experiments, "--output", output]
    words = [sys.executable, "-m", "llava_mole.cli.main", *words, "--rows", *ROWS, *more]
    return [str(word) for word in words]


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def run(*arguments):
    process = start(*arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def results(output):
    """Lines without what a clock decides."""
    lines = [json.loads(text) for text in (output / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def finished(experiments, tmp_path_factory):
    """Two rows with two seeds each, run without a stop."""
    output = tmp_path_factory.mktemp("finished")
    return output, *run(experiments, output)


def test_every_run_has_its_line_and_a_report_is_written(finished):
    output, status, said = finished
    assert status == 0, said
    assert "4 of 4 runs have results, 0 failed" in said
    lines = results(output)
    assert [(line["rows"][0], line["seed"]) for line in lines] == [
        ("llava-mix-1-1-0", 0),
        ("llava-mix-1-1-0", 1),
        ("llava-mole-1-1-0", 0),
        ("llava-mole-1-1-0", 1),
    ]
    for line in lines:
        assert set(line["scores"]) == {"general", "document", "biomedicine"}
        assert (line["scale"], line["steps"]) == ("tiny", 4)
        assert line["saved_bytes"] > 0
        assert len(json.dumps(line)) < 2000
        assert str(output) not in json.dumps(line)
    lora, mole = lines[0], lines[2]
    assert lora["routing"] is None
    assert mole["parameters"] > lora["parameters"]
    load = mole["routing"]["load"]
    assert set(load) == {"general", "document", "biomedicine"}
    assert mole["routing"]["kind_information"] > 0
    assert all(abs(sum(layer) - 1000) <= 1 for layers in load.values() for layer in layers)
    assert (output / "report/report.md").is_file()
    # Their results are safe, and small scales keep nothing else.
    assert not [path for path in (output / "runs").iterdir() if path.name != ".locks"]


def test_what_is_done_is_not_done_again(finished, experiments):
    output = finished[0]
    before = (output / "results.jsonl").read_bytes()
    status, said = run(experiments, output)
    assert status == 0, said
    assert (output / "results.jsonl").read_bytes() == before


def test_killed_and_started_again_it_ends_with_the_same_results(finished, experiments, tmp_path):
    process = start(experiments, tmp_path, "--keep-runs")
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoint-2")), process)
    process.kill()
    process.wait()
    time.sleep(1.5)
    status, said = run(experiments, tmp_path, "--status")
    assert status == 0
    assert "half-finished" in said or "done" in said
    status, said = run(experiments, tmp_path, "--keep-runs")
    assert status == 0, said
    assert results(tmp_path) == results(finished[0])
    for folder in (path for path in (tmp_path / "runs").iterdir() if path.name != ".locks"):
        assert (folder / "adapter_model.safetensors").is_file()
        assert (folder / "eval/report.html").is_file()
    # As after a SLURM job: run directories are there, lines are not, and a script measures them.
    (tmp_path / "results.jsonl").unlink()
    for file in tmp_path.glob("runs/*/measured.json"):
        file.unlink()
    status, said = run(experiments, tmp_path, "--measure")
    assert status == 0, said
    assert "4 of 4 runs measured now" in said
    status, said = run(experiments, tmp_path, "--measure", "--seeds", "0")
    assert "0 of 2 runs measured now" in said
    status, said = run(experiments, tmp_path, "--status")
    assert said.count("results of ") == 4
    assert "4 done" in said
    assert results(tmp_path) == results(finished[0])
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert all(json.loads(line)["seconds"]["train"] > 0 for line in lines)


def test_what_is_not_trained_is_not_measured(experiments, tmp_path):
    status, said = run(experiments, tmp_path, "--measure")
    assert status == 2
    assert "llava-mix-1-1-0-s0" in said
    assert "not trained to the end" in said


def test_a_run_that_fails_is_named_and_the_others_go_on(experiments, finished, tmp_path):
    process = start(experiments, tmp_path, "--processes", "1", "--seeds", "0")
    wait_for(lambda: list(tmp_path.glob("runs/*/log.txt")), process)
    for child in _children(process.pid):
        os.kill(child, signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    assert "its process ended with status -9" in said
    assert "1 of 2 runs have results, 1 failed" in said
    assert results(tmp_path)[0] in results(finished[0])


def test_a_run_that_cannot_start_leaves_its_reason(experiments, tmp_path):
    data = experiments.parents[1] / "data/document/document.json"
    whole = data.read_text()
    try:
        data.write_text(whole.replace('"from": "gpt"', '"from": "nobody"', 1))
        status, said = run(experiments, tmp_path, "--seeds", "0", "--processes", "1")
        assert status == 1
        assert "2 failed" in said
        assert "log.txt" in said
        status, said = run(experiments, tmp_path, "--status", "--seeds", "0")
        assert "2 failed" in said
    finally:
        data.write_text(whole)


def _children(pid: int) -> list[int]:
    """Worker processes; multiprocessing's own helper is none."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text()
    ]
