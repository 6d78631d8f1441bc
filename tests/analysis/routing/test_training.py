"""A run's own log of its routing, read from its files."""

import json
import math

import pytest
import torch

from llava_mole.analysis.routing import read_training
from llava_mole.train.meter import routing_logs

NAMES = ["b/2", "a"]


def log(step, counts):
    logs = routing_logs(torch.tensor(counts, dtype=torch.float64), NAMES)
    return {"step": step, "loss": 1.0, **{f"samples/{n}": step for n in NAMES}, **logs}


def write(folder, lines, end="\n"):
    folder.mkdir(exist_ok=True)
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + end)


def test_load_over_steps_is_what_the_trainer_logged(tmp_path):
    first = [[[6, 2], [1, 3]], [[5, 5], [10, 0]]]
    only_a = [[[0, 0], [0, 0]], [[1, 3], [3, 1]]]
    end = {"step": 20, "train_runtime": 3.0}
    write(tmp_path / "run", [log(10, first), log(20, only_a), end])
    found = read_training(tmp_path / "run")
    assert found.steps == [10, 20]
    assert list(found.load) == NAMES
    assert found.load["b/2"][0].tolist() == pytest.approx(
        [(6 / 8 + 1 / 4) / 2, (2 / 8 + 3 / 4) / 2]
    )
    assert found.load["b/2"][1].isnan().all()
    assert found.load["a"].tolist() == [[0.75, 0.25], [0.5, 0.5]]
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert found.entropy["a"].tolist() == pytest.approx([0.5, entropy])
    assert found.jensen_shannon.shape == (2,)
    assert (found.total_step, found.total) == (None, {})
    assert found.to_dict()["load"]["b/2"][1] == [None, None]


def test_the_newest_checkpoint_has_the_load_of_every_layer(tmp_path):
    run = tmp_path / "run"
    write(run, [log(9, [[[1, 1]], [[1, 1]]])])
    for step, routed in ((9, [[[1, 3]], [[4, 0]]]), (10, [[[1, 1]], [[3, 1]]]), (11, None)):
        folder = run / f"checkpoint-{step}"
        folder.mkdir()
        progress = {"samples_seen": {"b/2": 1, "a": 2}, "tokens_routed": routed}
        (folder / "progress.json").write_text(json.dumps(progress))
    (run / "checkpoint-12").mkdir()
    found = read_training(run)
    assert found.total_step == 10
    assert {name: load.tolist() for name, load in found.total.items()} == {
        "b/2": [[0.5, 0.5]],
        "a": [[0.75, 0.25]],
    }
    one = read_training(run / "checkpoint-9")
    assert one.steps == [9]
    assert one.total_step == 9
    assert one.total["a"].tolist() == [[1.0, 0.0]]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    write(tmp_path / "run", [log(10, [[[1, 1]], [[1, 1]]])], end='\n{"step": 20, "rou')
    assert read_training(tmp_path / "run").steps == [10]


def test_runs_without_such_a_log(tmp_path):
    assert read_training(tmp_path) is None
    write(tmp_path / "lora", [{"step": 1, "loss": 2.0}])
    assert read_training(tmp_path / "lora") is None
    (tmp_path / "metrics.jsonl").write_text("no json\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl:1"):
        read_training(tmp_path)
