"""``freeze_mm_mlp_adapter``: the projector stays as it was, and travels with the adapter."""

import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llava_mole.config import from_dict
from llava_mole.model.build import build_model
from llava_mole.model.load import load_run
from llava_mole.model.projector import projector_of
from llava_mole.train.config import RunConfig
from llava_mole.train.run import train
from tests.train.test_initial import changed
from tests.train.tiny_run import run_config, run_values

PROJECTOR = "multi_modal_projector"


@pytest.fixture(scope="module", params=["mole", "lora"])
def run(request, tmp_path_factory):
    """A finished run's config with the projector frozen; checkpoints at steps 2 and 4."""
    folder = tmp_path_factory.mktemp("frozen")
    config = run_config(folder, freeze_mm_mlp_adapter=True, save_steps=2, save_total_limit=None)
    config = changed(config, type=request.param)
    train(config)
    return config


def saved_in(folder):
    return load_file(f"{folder}/adapter_model.safetensors")


def test_the_projector_is_saved_as_it_was_and_the_adapter_has_moved(run):
    saved = saved_in(run.output_dir)
    torch.manual_seed(run.seed)
    before = dict(projector_of(build_model(run.model)).named_parameters())
    found = {key.partition(f"{PROJECTOR}.")[2]: v for key, v in saved.items() if PROJECTOR in key}
    assert found.keys() == before.keys()
    assert any((value != 0).any() for key, value in saved.items() if "lora_B" in key)
    early = saved_in(f"{run.output_dir}/checkpoint-2")
    for key, value in saved.items():
        if PROJECTOR in key:
            assert torch.equal(value, early[key]), key
    for key in found:
        assert torch.equal(found[key], before[key]), key


def test_it_loads_and_resumes_as_any_run(run, tmp_path):
    model, _ = load_run(run.output_dir)
    (key,) = [k for k in saved_in(run.output_dir) if k.endswith(f"{PROJECTOR}.linear_1.weight")]
    assert torch.equal(projector_of(model).linear_1.weight, saved_in(run.output_dir)[key])
    again = dataclasses.replace(run, output_dir=str(tmp_path / "again"))
    train(again)
    (tmp_path / "again" / "finished.json").unlink()
    shutil.rmtree(tmp_path / "again" / "checkpoint-4")
    train(again)
    once, resumed = saved_in(run.output_dir), saved_in(tmp_path / "again")
    assert once.keys() == resumed.keys()
    assert all(torch.equal(once[key], resumed[key]) for key in once)


@pytest.mark.parametrize(
    ("stage", "kind", "train_values", "message"),
    [
        ("pretrain", "mole", {}, "stage 'pretrain' .* nothing but the projector; set it to false"),
        ("finetune", "none", {}, "adapter.type 'none' trains nothing but the projector"),
        ("finetune", "lora", {"mm_projector_lr": 1e-4}, "mm_projector_lr is 0.0001 .* remove one"),
    ],
)
def test_a_run_that_could_not_use_it_is_refused(tmp_path, stage, kind, train_values, message):
    values = run_values(tmp_path, stage, freeze_mm_mlp_adapter=True, **train_values)
    values["adapter"]["type"] = kind
    with pytest.raises(ValueError, match=message):
        from_dict(RunConfig, values, "test")
