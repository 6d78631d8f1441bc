"""`train.router_domain_coef`: routers that learn the domain, in a whole run."""

import json
from pathlib import Path

import pytest
import torch

from llava_mole.config import from_dict
from llava_mole.train.config import RunConfig
from llava_mole.train.run import train
from tests.train.tiny_run import run_values, write_dataset

COEF = 2.0


def values_with(folder, coef, **train_values):
    values = run_values(folder, router_domain_coef=coef, **train_values)
    values["adapter"] |= {"num_experts": 2, "gate_scaling": "none", "balance_coef": 0.0}
    values["adapter"]["lora_dropout"] = 0.0
    return values


def logs(folder):
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_routers_learn_the_domain(tmp_path):
    # One domain of images, one of text alone, or there would be nothing to tell them by.
    write_dataset(tmp_path / "finetune_data", "squares", 24, 0)
    write_dataset(tmp_path / "finetune_data", "mixed", 16, 1, text_only_every=1)
    values = values_with(tmp_path, COEF, max_steps=40, router_lr=0.05)
    values["model"]["conv_mode"] = "chatml"  # no system prompt, which all samples share
    train(from_dict(RunConfig, values, "test"))
    steps = [line for line in logs(tmp_path / "run") if "loss_domain" in line]
    # Two domains: guessing costs ln 2 a sequence.
    assert steps[0]["loss_domain"] == pytest.approx(COEF * 0.693, rel=0.1)
    assert steps[-1]["loss_domain"] < 0.5 * steps[0]["loss_domain"]
    last = steps[-1]
    assert last["routing/squares/expert_0"] > 0.6
    assert last["routing/mixed/expert_1"] > last["routing/squares/expert_1"] + 0.3


def test_without_it_nothing_trains_the_routers(tmp_path):
    train(from_dict(RunConfig, values_with(tmp_path, 0.0), "test"))
    assert not any("loss_domain" in line for line in logs(tmp_path / "run"))


def test_the_result_does_not_hang_on_micro_batches(tmp_path):
    weights = []
    for size in (8, 2):
        values = values_with(tmp_path, COEF, per_device_train_batch_size=size)
        values["output_dir"] = str(tmp_path / f"run-{size}")
        folder = train(from_dict(RunConfig, values, "test"))
        from safetensors.torch import load_file

        weights.append(load_file(folder / "adapter_model.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-5)


def test_a_plain_lora_has_no_router(tmp_path):
    values = run_values(tmp_path, router_domain_coef=1.0)
    values["adapter"] = {"type": "lora", "r": 4, "lora_alpha": 8}
    with pytest.raises(ValueError, match=r"adapter\.type 'lora' has no router"):
        from_dict(RunConfig, values, "test")


def test_a_plain_lora_has_nothing_to_route_by_image(tmp_path):
    values = run_values(tmp_path)
    values["adapter"] = {"type": "lora", "r": 4, "lora_alpha": 8, "route_by_image": True}
    with pytest.raises(ValueError, match=r"route_by_image is true, and adapter\.type 'lora'"):
        from_dict(RunConfig, values, "test")


def test_routers_that_read_images_learn_the_domain_from_them_alone(tmp_path):
    write_dataset(tmp_path / "finetune_data", "squares", 24, 0)
    write_dataset(tmp_path / "finetune_data", "mixed", 16, 1, text_only_every=1)
    values = values_with(tmp_path, COEF, max_steps=40, router_lr=0.05)
    values["adapter"] |= {"route_by_image": True}
    train(from_dict(RunConfig, values, "test"))
    last = [line for line in logs(tmp_path / "run") if "loss_domain" in line][-1]
    # Behind a system prompt that all samples share, where a token's router sees no image yet.
    assert last["loss_domain"] < 0.1
    assert last["routing/squares/expert_0"] == last["routing/mixed/expert_1"] == 1.0
