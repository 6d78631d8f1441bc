import json
from pathlib import Path

import pytest

from llava_mole.config import load
from llava_mole.train.arguments import deepspeed_settings, training_arguments
from llava_mole.train.config import RunConfig, TrainConfig
from tests.train.tiny_run import run_config

CONFIGS = Path(__file__).parents[2] / "configs"
RUNS = ("pretrain", "finetune_mole", "finetune_lora")


@pytest.mark.parametrize("name", RUNS)
def test_shipped_configs_load_and_open_with_their_command(name):
    path = CONFIGS / f"{name}.yaml"
    config = load(RunConfig, path)
    assert f"scripts/{name}.sh" in path.read_text().splitlines()[0]
    for deviation in config.deviations:
        config.get(deviation.key)
    datasets = [d.name for domain in config.data.domains.values() for d in domain.datasets]
    assert set(datasets) == set(config.published_sizes)


@pytest.mark.parametrize("name", ["llava_1_5_7b.yaml", "sft.yaml", "fsdp2.yaml", "own_data.yaml"])
def test_every_other_config_says_how_it_is_used(name):
    head = (CONFIGS / name).read_text().split("\n\n")[0]
    assert any(way in head for way in ("llava-mole train", "accelerate launch", "bash scripts/"))


def test_paper_settings():
    pretrain, mole, lora = (load(RunConfig, CONFIGS / f"{name}.yaml") for name in RUNS)
    for config, batch, first, last in ((pretrain, 256, 1e-3, 2e-5), (mole, 64, 2e-5, 2e-6)):
        assert config.train.global_batch_size == batch
        assert config.train.learning_rate == first
        assert config.train.learning_rate * config.train.min_lr_rate == pytest.approx(last)
        assert config.train.warmup_steps == 500
        assert config.train.num_train_epochs == 1
        assert config.model.model_max_length == 4096
    assert (mole.adapter.r, mole.adapter.lora_alpha, mole.adapter.lora_dropout) == (32, 64, 0.05)
    assert (mole.adapter.balance_coef, mole.adapter.balance_norm) == (1e-2, "switch")
    assert mole.adapter.gate_scaling == "none"
    assert lora.adapter.type == "lora"
    assert (lora.data, lora.train) == (mole.data, mole.train)


def test_ureader_counts_as_in_the_paper():
    config = load(RunConfig, CONFIGS / "finetune_mole.yaml")
    (ureader,) = config.data.domains["document"].datasets
    assert ureader.resample == 1_100_000


def test_the_global_batch_must_divide():
    train = TrainConfig(global_batch_size=64, per_device_train_batch_size=4)
    assert {train.samples_per_step(ranks) for ranks in (1, 2, 8, 16)} == {64}
    with pytest.raises(ValueError, match=r"64 is no multiple of 3 ranks x .* 4 = 12"):
        train.samples_per_step(3)
    with pytest.raises(ValueError, match=r"64 is no multiple of 32 ranks x"):
        train.samples_per_step(32)
    assert train.samples_per_step(32, packing=True) == 64
    with pytest.raises(ValueError, match=r"64 is no multiple of 48 ranks;"):
        train.samples_per_step(48, packing=True)
    train = TrainConfig(gradient_accumulation_steps=3, per_device_train_batch_size=4)
    assert train.samples_per_step(2) == 24


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"learning_rate": 0}, "learning_rate"),
        ({"router_lr": -1}, "router_lr"),
        ({"min_lr_rate": 2}, "min_lr_rate"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size"),
        ({"max_grad_norm": -1}, "max_grad_norm"),
        ({"global_batch_size": 8, "gradient_accumulation_steps": 2}, "global_batch_size"),
    ],
)
def test_impossible_values_name_their_key(values, key):
    with pytest.raises(ValueError, match=rf"train\.{key}"):
        TrainConfig(**values)


def test_arguments_say_what_must_not_be_left_to_defaults(tmp_path):
    arguments = training_arguments(run_config(tmp_path, max_grad_norm=0.5, min_lr_rate=0.25))
    assert arguments.max_grad_norm == 0.5
    assert arguments.lr_scheduler_kwargs == {"min_lr_rate": 0.25}
    assert arguments.activation_checkpointing_kwargs == {
        "use_reentrant": False,
        "every_n_layers": 1,
    }
    # A batch of HF's loop is a whole step.
    assert arguments.gradient_accumulation_steps == 1
    assert arguments.per_device_train_batch_size == 8
    assert arguments.logging_nan_inf_filter is False


@pytest.mark.parametrize("stage", [2, 3])
def test_shipped_deepspeed_files_leave_optimisation_to_the_run_config(stage):
    settings = deepspeed_settings(str(CONFIGS / "deepspeed" / f"zero{stage}.json"))
    assert settings["zero_optimization"]["stage"] == stage
    assert settings["gradient_clipping"] == "auto"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"gradient_clipping": 1.0}, "gradient_clipping"),
        ({}, "gradient_clipping"),
        ({"gradient_clipping": "auto", "optimizer": {}}, "remove 'optimizer'"),
        ({"gradient_clipping": "auto", "scheduler": {}}, "remove 'scheduler'"),
    ],
)
def test_deepspeed_files_that_would_change_training_are_refused(tmp_path, settings, reason):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=reason):
        deepspeed_settings(str(path))


def test_unreadable_deepspeed_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.json: No such file"):
        deepspeed_settings(str(tmp_path / "absent.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json: not JSON"):
        deepspeed_settings(str(tmp_path / "bad.json"))


def test_deepspeed_without_a_launcher_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    path = str(CONFIGS / "deepspeed" / "zero2.json")
    with pytest.raises(ValueError, match="needs a launcher, even for one rank"):
        training_arguments(run_config(tmp_path, deepspeed=path))
