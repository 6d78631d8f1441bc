"""Learning rates and decay by part; the projector's zero gradient; what a stage trains."""

import dataclasses

import pytest
import torch
from transformers.trainer_pt_utils import get_parameter_names

from llava_mole.model.build import build_model
from llava_mole.train.adapter import attach
from llava_mole.train.parts import parameter_groups
from llava_mole.train.zero_gradient import ProjectorAlwaysTakesPart, find_module
from tests.tiny import IMAGE_TOKEN_ID, NUM_IMAGE_TOKENS
from tests.train.tiny_run import run_config


def build(tmp_path, stage="finetune", **adapter):
    config = run_config(tmp_path, stage, mm_projector_lr=1e-4, router_lr=1e-2, weight_decay=0.1)
    config.adapter = dataclasses.replace(config.adapter, **adapter)
    return config, attach(build_model(config.model), config)


def test_every_trained_parameter_is_in_one_group_with_its_rate(tmp_path):
    config, model = build(tmp_path, router_bias=True)
    decayed = get_parameter_names(model, [torch.nn.LayerNorm], ["bias"])
    groups = list(parameter_groups(model, config.train, decayed))
    names = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(names)
    rates = {"multi_modal_projector": 1e-4, "router": 1e-2, "lora": 3e-3, "experts": 3e-3}
    assert {group["name"]: group["lr"] for group in groups} == rates
    for group in groups:
        for parameter in group["params"]:
            bias = names[id(parameter)].endswith("bias")
            assert group["weight_decay"] == (0.0 if bias else 0.1), names[id(parameter)]


@pytest.mark.parametrize(
    ("stage", "kind", "parts"),
    [
        ("pretrain", "mole", {"multi_modal_projector"}),
        ("finetune", "none", {"multi_modal_projector"}),
        ("finetune", "lora", {"multi_modal_projector", "lora"}),
        ("finetune", "mole", {"multi_modal_projector", "lora", "experts", "router"}),
    ],
)
def test_what_a_stage_trains(tmp_path, stage, kind, parts):
    config, model = build(tmp_path, stage, type=kind)
    found = {group["name"] for group in parameter_groups(model, config.train, ())}
    assert found == parts
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_plain_lora_adapts_the_linears_that_mole_does(tmp_path):
    adapted = {}
    for kind in ("lora", "mole"):
        _, model = build(tmp_path, type=kind)
        names = [n for n, p in model.named_parameters() if p.requires_grad and "layers" in n]
        adapted[kind] = {
            n.replace(".mole_", ".").replace(".base_layer", "").split(".lora_")[0].split(".A")[0]
            for n in names
            if ("lora_A" in n or ".A" in n) and "router" not in n
        }
    assert {n.split(".default")[0] for n in adapted["mole"]} == adapted["lora"]
    assert len(adapted["lora"]) == 2 * 7


@pytest.mark.parametrize("through_tower", [False, True])
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_text_alone_gives_the_projector_a_zero_gradient(tmp_path, stage, through_tower):
    _, model = build(tmp_path, stage)
    ids = torch.randint(3, 200, (2, 7))
    plain = model(input_ids=ids).logits
    hooks = ProjectorAlwaysTakesPart(model, through_tower)
    hooked = model(input_ids=ids).logits
    assert torch.equal(plain, hooked)
    hooked.sum().backward()
    projector = [
        p for p in find_module(model, "multi_modal_projector").parameters() if p.requires_grad
    ]
    assert len(projector) == 4
    for parameter in projector:
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
    hooks.remove()


@pytest.mark.parametrize(("through_tower", "calls"), [(False, 0), (True, 1)])
def test_a_frozen_projector_needs_it_on_sharded_ranks_only(tmp_path, through_tower, calls):
    config = run_config(tmp_path, freeze_mm_mlp_adapter=True)
    model = attach(build_model(config.model), config)
    seen = []
    find_module(model, "multi_modal_projector").register_forward_hook(lambda *_: seen.append(1))
    hooks = ProjectorAlwaysTakesPart(model, through_tower)
    model(input_ids=torch.randint(3, 200, (2, 7)))
    assert len(seen) == calls
    hooks.remove()


@pytest.mark.parametrize(("through_tower", "calls"), [(False, 0), (True, 1)])
def test_without_gradients_only_sharded_ranks_need_it(tmp_path, through_tower, calls):
    _, model = build(tmp_path, "finetune")
    seen = []
    find_module(model, "multi_modal_projector").register_forward_hook(lambda *_: seen.append(1))
    hooks = ProjectorAlwaysTakesPart(model, through_tower)
    with torch.no_grad():
        model(input_ids=torch.randint(3, 200, (2, 7)))
    assert len(seen) == calls
    hooks.remove()


def test_images_give_it_a_real_one_and_nothing_is_added(tmp_path):
    _, model = build(tmp_path)
    ids = torch.randint(3, 200, (1, 9))
    ids[0, 1 : 1 + NUM_IMAGE_TOKENS] = IMAGE_TOKEN_ID
    pixels = torch.randn(1, 3, 28, 28)
    config = model.config
    ids[ids == IMAGE_TOKEN_ID] = (
        config.image_token_index if hasattr(config, "image_token_index") else config.image_token_id
    )
    before = model(input_ids=ids, pixel_values=pixels).logits
    hooks = ProjectorAlwaysTakesPart(model)
    projections = []
    find_module(model, "multi_modal_projector").register_forward_hook(
        lambda *args: projections.append(1)
    )
    after = model(input_ids=ids, pixel_values=pixels).logits
    assert torch.equal(before, after)
    assert len(projections) == 1
    after.sum().backward()
    grads = [p.grad for n, p in model.named_parameters() if "projector" in n and p.requires_grad]
    assert all(grad.abs().max() > 0 for grad in grads)
    with torch.no_grad():
        model(input_ids=torch.randint(3, 200, (1, 4)))
    assert len(projections) == 1, "no zeros where no gradient is wanted"
    hooks.remove()
