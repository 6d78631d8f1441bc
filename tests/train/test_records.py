"""What a run writes beside its weights: metrics, routing, held-out loss, versions, wandb's mode."""

import json
import os

import numpy as np
import pytest
import torch

from llava_mole.mole import statistics
from llava_mole.train import rundir
from llava_mole.train.callbacks import MetricsFile, settle_wandb
from llava_mole.train.counts import GlobalBatch
from llava_mole.train.meter import Meter, routing_logs


def test_the_run_directory_explains_itself(one_process):
    names = {path.name for path in one_process.iterdir()}
    assert names >= {
        "config.yaml",
        "versions.json",
        "metrics.jsonl",
        "adapter_model.safetensors",
        "adapter_config.json",
        "processor_config.json",
        "tokenizer.json",
        "finished.json",
        "checkpoint-20",
    }
    versions = json.loads((one_process / "versions.json").read_text())
    assert versions["packages"]["torch"] == torch.__version__
    assert rundir.finished(one_process)
    card = (one_process / "README.md").read_text()
    assert f'load_run("{one_process}")' in card
    assert "K = 3 LoRA experts" in card


def test_metrics_hold_losses_rates_speed_mixture_and_routing(one_process):
    lines = [json.loads(line) for line in (one_process / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == [*range(1, 21), 20]
    for line in lines[:-1]:
        assert line["loss"] == pytest.approx(line["loss_lm"] + line["loss_balance"], abs=1e-5)
        assert line["grad_norm"] > 0
        assert line["tokens_per_second"] > 0
        shares = [line[f"routing/all/expert_{k}"] for k in range(3)]
        assert sum(shares) == pytest.approx(1)
        assert 0 <= line["routing/squares/entropy"] <= 1
        assert line["samples/squares"] + line["samples/mixed"] == 8 * line["step"]
    rates = [line["learning_rate/experts"] for line in lines[:-1]]
    assert rates[:3] == [0, 1.5e-3, 3e-3]
    assert rates == [line["learning_rate"] for line in lines[:-1]]
    # One epoch is 24 + 2 x 16 samples, so 7 global batches.
    assert lines[6]["samples/squares"] == 24
    assert lines[6]["samples/mixed"] == 32


def test_routing_logs_against_a_loop():
    counts = torch.tensor(
        [[[6.0, 2, 0], [4, 4, 0]], [[0, 0, 0], [0, 0, 0]], [[1, 1, 2], [0, 4, 0]]]
    ).double()
    logs = routing_logs(counts, ["a", "silent", "b"])
    assert not any("silent" in key for key in logs)
    assert logs["routing/a/expert_0"] == pytest.approx((6 / 8 + 4 / 8) / 2)
    assert logs["routing/a/dead"] == pytest.approx(2 / 6)
    assert logs["routing/b/dead"] == pytest.approx(2 / 6)
    assert logs["routing/all/expert_2"] == pytest.approx((2 / 12 + 0) / 2)
    expected = statistics.jensen_shannon(counts).mean().item()
    assert logs["routing/jensen_shannon"] == pytest.approx(expected)


def test_the_meter_adds_up_by_data_set_and_survives_a_resume():
    meter = Meter(["a", "b"], torch.device("cpu"))
    ids = torch.tensor([0, 1, 1])
    counts = torch.arange(2 * 3 * 2.0).view(2, 3, 2)
    for _ in range(2):
        work = np.array([[[10, 12, 1]], [[20, 24, 1]]])
        meter.add_step(GlobalBatch(targets=5, sequences=3, tokens=30), work)
        meter.add_samples(ids)
        meter.add_loss(torch.tensor(2.0), torch.tensor(0.5), torch.tensor(0.25))
        meter.add_routing(counts, ids)
    state = json.loads(json.dumps(meter.state()))
    logs, routed = meter.read()
    assert (logs["loss_lm"], logs["loss_balance"], logs["loss_domain"]) == (2.0, 0.5, 0.25)
    assert (logs["samples/a"], logs["samples/b"]) == (2, 4)
    assert logs["target_tokens_per_step"] == 5
    assert logs["samples_per_second"] == pytest.approx(logs["tokens_per_second"] * 6 / 60)
    assert logs["data/useful_tokens"] == pytest.approx(30 / 36)
    assert logs["data/rank_imbalance"] == pytest.approx(24 / 18)
    assert (logs["data/image_imbalance"], logs["data/micro_steps"]) == (1, 1)
    expected = torch.stack([counts[:, 0], counts[:, 1] + counts[:, 2]]) * 2
    assert torch.equal(routed, expected.double())
    resumed = Meter(["a", "b"], torch.device("cpu"))
    resumed.restore(state)
    assert resumed.state() == state == meter.state()


def test_heldout_loss_is_per_target_and_changes_nothing(runs, one_process):
    values = runs.values("heldout", per_device_train_batch_size=8, max_steps=4, eval_steps=2)
    name = {"name": "held", "path": values["data"]["domains"]["general"]["datasets"][0]["path"]}
    values["data"]["eval"] = {"datasets": [name], "max_samples": 5}
    calls = []

    def evaluate(model, processor, step):
        torch.rand(7)  # what it draws must not reach training
        calls.append((model.training, processor.tokenizer is not None, step))
        return {"accuracy": 0.5}

    run = runs.run(values, evaluate=evaluate)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    held = {line["step"]: line["eval/held/loss"] for line in lines if "eval/held/loss" in line}
    assert list(held) == [2, 4]
    assert all(4 < loss < 8 for loss in held.values())
    assert calls == [(False, True, 2), (False, True, 4)]
    losses = [line["loss"] for line in lines if "loss" in line]
    reference = [json.loads(line) for line in (one_process / "metrics.jsonl").open()]
    assert losses[:2] == [line["loss"] for line in reference[:2]]


def test_cached_features_train_the_same(runs, one_process):
    values = runs.values("cached", per_device_train_batch_size=8, max_steps=4, warmup_steps=1)
    plain = runs.run({**values, "output_dir": str(runs.folder / "uncached")})
    values["data"]["feature_cache"] = str(runs.folder / "features.arrow")
    cached = runs.run(values)
    losses = [
        [json.loads(line).get("loss_lm") for line in (run / "metrics.jsonl").open()][:4]
        for run in (plain, cached)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_cut_off_metrics_line_is_dropped_on_resume(tmp_path):
    class State:
        is_world_process_zero = True
        global_step = 2

    metrics = MetricsFile(tmp_path)
    metrics.path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    metrics.on_train_begin(None, State, None)
    metrics.on_log(None, State, None, {"loss": float("nan")})
    assert metrics.path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 2, "loss": null}\n'


@pytest.fixture
def no_wandb(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR", "WANDB_PROJECT", "WANDB_SILENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "x")
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_wandb_is_offline_without_a_key(no_wandb, tmp_path):
    settle_wandb([], tmp_path)
    assert "WANDB_MODE" not in os.environ
    settle_wandb(["wandb"], tmp_path)
    assert os.environ["WANDB_MODE"] == "offline"


def test_wandb_goes_online_with_one_and_the_users_mode_stays(no_wandb, tmp_path):
    os.environ["WANDB_API_KEY"] = "0" * 40
    settle_wandb(["wandb"], tmp_path)
    assert "WANDB_MODE" not in os.environ
    del os.environ["WANDB_API_KEY"]
    os.environ["WANDB_MODE"] = "disabled"
    settle_wandb(["wandb"], tmp_path)
    assert os.environ["WANDB_MODE"] == "disabled"


def test_loggers_write_without_key_or_network(runs, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(runs.folder))
    values = runs.values("loggers", max_steps=2)
    values["train"]["report_to"] = ["tensorboard"]
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    run = runs.run(values)
    assert list((run / "tensorboard").glob("events*"))
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
