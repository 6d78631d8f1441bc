"""Rows with a stage 1 of their own: what it is, what it is told apart by, that it is made once."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from llava_mole.config import ConfigError
from llava_mole.reproduce.launch import write
from llava_mole.reproduce.rows import find, read_rows
from llava_mole.reproduce.runs import resolve_runs, stages_of, summary
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.stage1 import start_of
from llava_mole.reproduce.status import refuse_missing
from llava_mole.reproduce.status import text as status_text
from llava_mole.reproduce.store import Store, measured
from llava_mole.reproduce.worker import Job, do
from tests.reproduce.tiny_scale import write_beyond

RATE = ("llava-mix-stage1-5e-2", "llava-mole-stage1-5e-2")
MOLE, LORA = "llava-mole-stage1-mole", "llava-mix-stage1-lora"


@pytest.fixture
def experiments(tmp_path):
    return write_beyond(tmp_path)


def runs_of(experiments, *names, output=None, seeds=(0,)):
    rows = read_rows(experiments)
    selected = [find(rows, name) for name in names]
    return resolve_runs(read_scale(experiments, "tiny"), rows, selected, seeds, output)


def test_a_rate_is_changed_in_stage_1_alone(experiments):
    usual, changed = runs_of(experiments, "llava-mole-1-1-1", RATE[1])
    stage = changed.stage_1.config
    assert (stage.stage, stage.train.learning_rate, stage.train.max_steps) == ("pretrain", 0.05, 3)
    assert changed.config.model.projector == stage.output_dir
    assert changed.config.adapter == usual.config.adapter
    assert changed.config.train.learning_rate == usual.config.train.learning_rate
    assert usual.stage_1 is None
    assert changed.hash != usual.hash


def test_rows_and_seeds_share_a_stage_1(experiments):
    runs = runs_of(experiments, *RATE, MOLE, seeds=(0, 1))
    assert len(runs) == 6
    shared, own = stages_of(runs)
    assert (shared[1], own[1]) == (list(RATE), [MOLE])
    assert shared[0].folder != own[0].folder
    # Its seed is its own, whatever the second stage's.
    assert {run.stage_1.config.seed for run in runs} == {3}


@pytest.mark.parametrize(("name", "kind"), [(MOLE, "mole"), (LORA, "lora")])
def test_an_adapter_in_stage_1_is_the_rows_own_and_gone_on_from(experiments, name, kind):
    (run,) = runs_of(experiments, name)
    stage, second = run.stage_1.config, run.config
    assert (stage.stage, stage.adapter.type) == ("finetune", kind)
    assert (second.model.projector, second.adapter.init_from) == (None, stage.output_dir)
    assert dataclasses.replace(second.adapter, init_from=None) == stage.adapter
    assert (stage.adapter.r, stage.adapter.lora_alpha) == (4, 8)
    assert stage.data.domains.keys() == second.data.domains.keys()


def test_identity_has_what_stage_1_is_and_not_where(experiments, tmp_path):
    names = (*RATE, MOLE, "llava-mole-1-1-1")
    before = [run.hash for run in runs_of(experiments, *names)]
    assert len(set(before)) == 4
    elsewhere = runs_of(experiments, *names, output=tmp_path / "elsewhere")
    assert [run.hash for run in elsewhere] == before
    assert str(tmp_path) not in json.dumps([summary(run) for run in elsewhere])
    file = experiments / "tiny/pretrain.yaml"
    values = yaml.safe_load(file.read_text())
    values["train"]["max_steps"] = 5
    file.write_text(yaml.safe_dump(values))
    after = [run.hash for run in runs_of(experiments, *names)]
    # Table 2's row comes first.
    assert [one == other for one, other in zip(before, after, strict=True)] == [True] + [False] * 3


def test_a_scale_without_stage_1_leaves_such_rows_out(experiments):
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    scale.stage_1, left_out = None, {}
    assert resolve_runs(scale, rows, [find(rows, MOLE)], (0,), left_out=left_out) == []
    assert "scale tiny names no stage_1" in left_out[MOLE].reason


@pytest.mark.parametrize(
    ("folder", "stage_1", "message"),
    [
        ("beyond", {}, "stage_1: {} changes nothing"),
        ("beyond", 5e-2, "stage_1: 0.05 changes nothing"),
        ("beyond", {"adapter": {"r": 2}}, "stage_1.adapter: .* it is the row's own"),
        ("beyond", {"output_dir": "x"}, "stage_1.output_dir: it has a place of its own"),
        ("table2", {"seed": 1}, "no row of the paper's Table 2 has a stage 1 of its own"),
    ],
)
def test_a_stage_1_that_cannot_be_is_refused(experiments, folder, stage_1, message):
    values = {"base": "../table2/llava-mole-1-1-1.yaml", "stage_1": stage_1}
    (experiments / folder / "mine.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=rf"{folder}/mine\.yaml: .*{message}"):
        read_rows(experiments)


def test_a_wrong_key_names_the_rows_file(experiments):
    values = {"base": "../table2/llava-mole-1-1-1.yaml", "stage_1": {"train": {"lr": 1}}}
    (experiments / "beyond/mine.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"mine\.yaml, stage_1, on .*unknown key 'train\.lr'"):
        runs_of(experiments, "mine")


def test_scripts_for_several_gpus_do_not_know_the_order(experiments, tmp_path):
    runs = runs_of(experiments, "llava-mix-1-1-1", RATE[0])
    with pytest.raises(ValueError, match=rf"{RATE[0]}: with a stage 1 of their own"):
        write(runs, read_scale(experiments, "tiny"), "slurm", experiments, tmp_path)


def test_what_stage_1_needs_must_be_there(experiments, tmp_path):
    scale = read_scale(experiments, "tiny")
    (run,) = runs_of(experiments, RATE[0])
    # Not its projector, which is made on the way.
    refuse_missing([run], scale)
    plain = tmp_path / "data/plain.json"
    file = experiments / "tiny/pretrain.yaml"
    values = yaml.safe_load(file.read_text())
    values["data"]["domains"]["general"]["datasets"][0]["path"] = str(plain)
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=rf"plain\.json, for {RATE[0]}"):
        refuse_missing(runs_of(experiments, RATE[0]), scale)


def test_stage_1_is_trained_once_and_said_in_the_line(experiments, tmp_path):
    scale = read_scale(experiments, "tiny")
    runs = runs_of(experiments, *RATE, MOLE)
    store = Store(tmp_path / "results.jsonl", "tiny")
    assert status_text(runs, store).count("waiting") == 3 + 2 + 1
    finished = []
    for run in runs:
        reply = do(Job(run, scale, store.path, keep=True))
        assert reply.error is None, reply.error
        finished.append((run.stage_1.folder / "finished.json").stat().st_mtime_ns)
    assert finished[0] == finished[1]
    store.reread()
    lora, mole, own = (store.get(run) for run in runs)
    assert lora["stage_1"] == mole["stage_1"] != own["stage_1"]
    assert (lora["stage_1"]["steps"], own["stage_1"]["steps"]) == (3, 3)
    assert lora["stage_1"]["loss"] > 0
    assert lora["config"]["stage_1"]["train"]["learning_rate"] == 0.05
    assert own["config"]["stage_1"]["trains_adapter"]
    assert str(tmp_path) not in json.dumps([lora, own])
    assert "stage 1 of llava-mix-stage1-5e-2, llava-mole-stage1-5e-2: done" in status_text(
        runs, store
    )
    found = measured(store, read_rows(experiments), runs)
    assert found[MOLE].extras[0]["stage_1_loss"] == own["stage_1"]["loss"]
    # Both stages' weights are there, and the second's are not the first's.
    second = runs[2].folder / "adapter_model.safetensors"
    first = runs[2].stage_1.folder / "adapter_model.safetensors"
    assert second.stat().st_size == first.stat().st_size
    assert second.read_bytes() != first.read_bytes()


def test_the_loss_is_the_mean_of_the_logs_end(experiments, tmp_path):
    (run,) = runs_of(experiments, RATE[0])
    folder = Path(run.config.model.projector)
    assert start_of(run.config) is None
    folder.mkdir(parents=True)
    lines = [{"step": 10 * n, "loss": 9.0, "loss_lm": float(n)} for n in range(1, 21)]
    lines.append({"step": 205, "train_loss": 99.0})
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    assert start_of(run.config) == {"loss": 19.5, "steps": 205}
    # A number that JSON has no word for.
    (folder / "metrics.jsonl").write_text(text.replace('"loss_lm": 20.0', '"loss_lm": null'))
    assert start_of(run.config) == {"loss": None, "steps": 205}
