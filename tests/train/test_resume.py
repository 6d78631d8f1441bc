"""A run that was interrupted ends bit for bit as one that was not."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from llava_mole.config import dump, from_dict
from llava_mole.train import checkpoints, rundir
from llava_mole.train.config import RunConfig
from tests.train.conftest import weights
from tests.train.ranks import REPOSITORY, environment, write_config

STAGES = ("finetune", "pretrain")


def values_of(runs, name, stage):
    values = runs.values(
        name, stage, per_device_train_batch_size=4, max_steps=9, save_steps=3, save_total_limit=None
    )
    values["adapter"]["lora_dropout"] = 0.1  # so that the random state matters
    values["train"]["weight_decay"] = 0.1
    return values


@pytest.fixture(scope="module", params=STAGES)
def uninterrupted(request, runs):
    torch.set_num_threads(1)
    return request.param, runs.run(values_of(runs, f"whole_{request.param}", request.param))


def assert_same_end(one, other):
    """Weights, optimizer, scheduler and random state, bit for bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    for file in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with torch.serialization.safe_globals(NUMPY):
            loaded = [
                torch.load(run / "checkpoint-9" / file, weights_only=True) for run in (one, other)
            ]
        assert equal(*loaded), file
    progress = [(run / "checkpoint-9" / "progress.json").read_text() for run in (one, other)]
    assert progress[0] == progress[1]


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool((one == other).all()) if hasattr(one, "all") else one == other


def numpy_globals():
    import numpy as np

    return [
        np._core.multiarray._reconstruct,
        np.ndarray,
        np.dtype,
        np.dtypes.UInt32DType,
    ]


NUMPY = numpy_globals()


@pytest.mark.parametrize("step", [3, 6])
def test_resumed_equals_uninterrupted(runs, uninterrupted, step):
    stage, whole = uninterrupted
    values = values_of(runs, f"resumed_{stage}_{step}", stage)
    resumed = runs.folder / f"resumed_{stage}_{step}"
    resumed.mkdir()
    shutil.copy(whole / "config.yaml", resumed)
    text = (resumed / "config.yaml").read_text().replace(whole.name, resumed.name)
    (resumed / "config.yaml").write_text(text)
    shutil.copytree(whole / f"checkpoint-{step}", resumed / f"checkpoint-{step}")
    assert runs.run(values) == resumed
    assert_same_end(whole, resumed)
    steps = [json.loads(line)["step"] for line in (resumed / "metrics.jsonl").open()]
    assert steps[0] == step + 1


def test_a_run_killed_after_its_last_checkpoint_makes_no_step_more(runs, uninterrupted):
    stage, whole = uninterrupted
    values = values_of(runs, f"ended_{stage}", stage)
    ended = runs.folder / f"ended_{stage}"
    ended.mkdir()
    text = (whole / "config.yaml").read_text().replace(whole.name, ended.name)
    (ended / "config.yaml").write_text(text)
    shutil.copytree(whole / "checkpoint-9", ended / "checkpoint-9")
    runs.run(values)
    assert json.loads((ended / "finished.json").read_text())["steps"] == 9
    assert_same_end(whole, ended)


def test_killed_anywhere_it_goes_on_from_the_newest_valid_checkpoint(runs, uninterrupted):
    """A real SIGKILL between two saves, then a flipped bit in the newest checkpoint."""
    stage, whole = uninterrupted
    values = values_of(runs, f"killed_{stage}", stage)
    killed = runs.folder / f"killed_{stage}"
    config = write_config(runs.folder, values)
    command = [sys.executable, "-m", "llava_mole.cli.main", "train", "--config", str(config)]
    process = subprocess.Popen(
        command, env=environment(), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 200
    while not (killed / "checkpoint-6").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0].decode()
    assert (killed / "checkpoint-6").exists(), output
    damaged = next((killed / "checkpoint-6").glob("*.safetensors"))
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    for later in ("checkpoint-9", "finished.json"):  # the kill may have come after the end
        path = killed / later
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    runs.run(values)
    assert_same_end(whole, killed)
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").open()]
    assert steps == [*range(1, 10), 9], "each step logged once, then the summary"


def test_every_checkpoint_is_complete(uninterrupted):
    stage, whole = uninterrupted
    expected = {
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "progress.json",
        "processor_config.json",
        "tokenizer.json",
    }
    final = weights(whole)
    for step in (3, 6, 9):
        folder = whole / f"checkpoint-{step}"
        assert checkpoints.verify(folder)["step"] == step
        assert expected <= {path.name for path in folder.iterdir()}
        assert weights(folder).keys() == final.keys()
    parts = {
        "finetune": ("lora_A", "lora_B", ".A", ".B", "mole_router", "multi_modal_projector"),
        "pretrain": ("multi_modal_projector",),
    }[stage]
    for part in parts:
        assert any(part in name for name in final), part
    if stage == "pretrain":
        assert all(name.startswith("multi_modal_projector.") for name in final)
        assert sum(path.stat().st_size for path in whole.glob("*.safetensors")) < 20_000
    assert not list(whole.glob("**/training_args.bin")), "a pickle that nothing reads"


def test_a_finished_run_is_left_alone(runs, uninterrupted):
    stage, whole = uninterrupted
    before = (whole / "metrics.jsonl").read_text()
    assert runs.run(values_of(runs, whole.name, stage)) == whole
    assert (whole / "metrics.jsonl").read_text() == before


def test_another_config_in_the_same_folder_is_refused(runs, uninterrupted):
    stage, whole = uninterrupted
    values = values_of(runs, whole.name, stage)
    values["train"]["learning_rate"] = 1e-3
    with pytest.raises(ValueError, match=r"another config:\n  train.learning_rate: 0.003 -> 0.001"):
        runs.run(values)


def test_a_folder_that_cant_be_made_is_said_before_the_model_is_built(
    runs, uninterrupted, monkeypatch
):
    stage, _ = uninterrupted
    (runs.folder / f"taken-{stage}").write_text("a file, and no folder")
    monkeypatch.setattr("llava_mole.train.run.build_model", None)
    with pytest.raises(ValueError, match=rf"output_dir: can't write to .*taken-{stage}: "):
        runs.run(values_of(runs, f"taken-{stage}", stage))


def test_a_run_that_saved_nothing_yet_holds_nobody_to_its_config(runs, uninterrupted):
    """It may have stopped at a bad record, and the remedy is another value in the config."""
    stage, whole = uninterrupted
    folder = runs.folder / f"stopped-{stage}"
    folder.mkdir()
    values = values_of(runs, whole.name, stage)
    dump(from_dict(RunConfig, values, "test"), folder / "config.yaml")
    values["train"]["learning_rate"] = 1e-3
    changed = from_dict(RunConfig, values, "test")
    assert rundir.differences(changed, folder) == []
    (folder / "checkpoint-1").mkdir()
    assert rundir.differences(changed, folder) == ["train.learning_rate: 0.003 -> 0.001"]


def test_a_layout_may_not_change_where_the_balance_loss_is_taken_over_a_micro_batch(runs):
    values = values_of(runs, "unused", "finetune")
    values["adapter"] = {"type": "mole", "balance_scope": "sequence"}
    for scope, decides in (("sequence", False), ("global_batch", False), ("micro_batch", True)):
        values["adapter"]["balance_scope"] = scope
        keys = rundir.decisive(from_dict(RunConfig, values, "test"))
        assert ("train.per_device_train_batch_size" in keys) is decides
        assert ("data.packing" in keys) is decides
    values["adapter"]["type"] = "lora"
    keys = rundir.decisive(from_dict(RunConfig, values, "test"))
    assert "data.packing" not in keys


def test_layout_and_logging_may_change(runs, uninterrupted):
    stage, whole = uninterrupted
    values = values_of(runs, whole.name, stage)
    values["train"] |= {"per_device_train_batch_size": 2, "logging_steps": 5}
    assert runs.run(values) == whole


def test_never_does_not_start_over_beside_checkpoints(runs, uninterrupted):
    stage, whole = uninterrupted
    with pytest.raises(ValueError, match="holds checkpoint-9"):
        runs.run(values_of(runs, whole.name, stage), resume="never")


def test_a_named_checkpoint_must_be_valid(runs, uninterrupted):
    stage, _ = uninterrupted
    values = values_of(runs, f"named_{stage}", stage)
    with pytest.raises(ValueError, match="never finished"):
        runs.run(values, resume=str(runs.folder / "nowhere"))
