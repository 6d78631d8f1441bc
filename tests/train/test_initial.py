"""Going on from an earlier run's adapter and projector."""

import dataclasses

import pytest
from safetensors.torch import load_file

from llava_mole.model.build import build_model
from llava_mole.train.adapter import attach
from llava_mole.train.run import train
from tests.train.tiny_run import run_config

TYPES = ("mole", "lora")


def changed(config, section="adapter", **values):
    new = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: new})


@pytest.fixture(scope="module", params=TYPES)
def first(request, tmp_path_factory):
    """A finished run, and a config that goes on from it."""
    folder = tmp_path_factory.mktemp("initial")
    config = changed(run_config(folder), type=request.param)
    train(config)
    second = changed(config, init_from=config.output_dir)
    return config, dataclasses.replace(second, output_dir=str(folder / "second"))


def trained_of(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_every_trained_weight_is_the_runs(first):
    before, config = first
    saved = load_file(f"{before.output_dir}/adapter_model.safetensors")
    model = attach(build_model(config.model), config)
    found = trained_of(model)
    assert len(found) == len(saved)
    for name, value in found.items():
        # PEFT leaves the adapter's own name out of the file.
        key = name.replace(".default", "").replace(".modules_to_save", "")
        assert (value == saved[key]).all(), name
    assert any("lora_B" in name and value.any() for name, value in found.items())


def test_training_goes_on_and_differs_from_a_new_adapters(first):
    before, config = first
    own = load_file(f"{train(config)}/adapter_model.safetensors")
    start = load_file(f"{before.output_dir}/adapter_model.safetensors")
    assert own.keys() == start.keys()
    moved = [(own[key] - start[key]).abs().max().item() for key in own]
    assert max(moved) > 0
    # Not from where a new adapter would start.
    assert max(moved) < 0.1


def test_shapes_alone_need_no_weights(first):
    _, config = first
    model = attach(build_model(config.model, device="meta"), config)
    assert all(p.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("adapter", {"r": 2}, r"was trained with adapter\.r 4, and here it is 2; set adapter\.r"),
        ("adapter", {"lora_alpha": 4}, r"with adapter\.lora_alpha 8, and here it is 4"),
        ("adapter", {"rank_pattern": {"mlp": 2}}, r"with adapter\.rank_pattern \{\}"),
        ("adapter", {"init_from": "absent"}, r"init_from: absent has no config\.yaml; give the"),
        ("adapter", {"type": "none"}, r"adapter\.type 'none' trains no adapter; remove it"),
        (
            "model",
            {"projector": "p"},
            r"model\.projector is p and .*; set model\.projector to null",
        ),
        ("model", {"vision_feature_layer": -1}, r"trained with model\.vision_feature_layer"),
    ],
)
def test_another_adapter_or_model_is_refused(first, section, values, message):
    _, config = first
    with pytest.raises(ValueError, match=message):
        attach(None, changed(config, section, **values))


def test_the_type_and_the_number_of_experts_must_be_the_same(first):
    _, config = first
    other = {"mole": "lora", "lora": "mole"}[config.adapter.type]
    with pytest.raises(ValueError, match=rf"adapter\.type '{config.adapter.type}', and here"):
        attach(None, changed(config, type=other))
    if config.adapter.type == "mole":
        with pytest.raises(ValueError, match=r"adapter\.num_experts 3, and here it is 5"):
            attach(None, changed(config, num_experts=5))


def test_a_projector_alone_is_no_adapter_to_start_from(tmp_path):
    stage_1 = run_config(tmp_path, stage="pretrain")
    train(stage_1)
    config = changed(run_config(tmp_path), init_from=stage_1.output_dir)
    config = dataclasses.replace(config, output_dir=str(tmp_path / "second"))
    with pytest.raises(ValueError, match=r"has no adapter_model\.safetensors; give the directory"):
        train(config)
