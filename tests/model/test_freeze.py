"""Each stage trains exactly its parts."""

import pytest
from peft import LoraConfig, get_peft_model

from llava_mole import MoleConfig
from llava_mole.model.freeze import count_parameters, freeze, table
from llava_mole.model.projector import load_projector, projector_of, save_projector
from tests import tiny


def trainable(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_pretrain_trains_the_projector_alone(llava):
    counts = freeze(llava, "pretrain")
    assert trainable(llava) == {
        f"model.multi_modal_projector.linear_{i}.{part}"
        for i in (1, 2)
        for part in ("weight", "bias")
    }
    assert counts["multi_modal_projector"] == (32 * 32 * 2 + 64, 32 * 32 * 2 + 64)
    assert counts["vision_tower"].trainable == counts["language_model"].trainable == 0
    total = sum(c.total for c in counts.values())
    assert total == sum(p.numel() for p in llava.parameters())
    assert f"{total:,}" in table(counts).splitlines()[-1]


def test_finetune_trains_adapters_and_projector(llava):
    config = MoleConfig(num_experts=3, r=4, modules_to_save=["multi_modal_projector"])
    model = get_peft_model(llava, config)
    counts = freeze(model, "finetune")
    # By hand: two layers; q, o 32x32 and k, v 32x16; gate, up 32->64, down 64->32.
    assert counts["lora"] == (2 * 4 * (64 + 64 + 48 + 48),) * 2
    assert counts["experts"] == (2 * 3 * 4 * 3 * 96,) * 2
    assert counts["router"] == (2 * 3 * 32,) * 2
    assert counts["multi_modal_projector"] == (2112, 2112)
    assert counts["vision_tower"].trainable == counts["language_model"].trainable == 0
    assert not any("original_module" in name for name in trainable(model))


def test_plain_lora_counts_as_lora(llava):
    targets = r".*language_model.*\.(q_proj|down_proj)"
    model = get_peft_model(llava, LoraConfig(r=4, target_modules=targets))
    freeze(model, "finetune")
    assert count_parameters(model)["lora"] == (2 * 4 * (64 + 96),) * 2
    assert projector_of(model).linear_1.weight.requires_grad


def test_unknown_stage(llava):
    with pytest.raises(ValueError, match="pretrain, finetune"):
        freeze(llava, "sft")


def test_projector_is_saved_from_below_an_adapter(llava, tmp_path):
    config = MoleConfig(num_experts=2, r=4, modules_to_save=["multi_modal_projector"])
    model = get_peft_model(llava, config)
    trained = projector_of(model)
    trained.linear_1.bias.data += 1.0
    path = save_projector(model, tmp_path)
    assert path.name == "projector.safetensors"
    assert [p.name for p in tmp_path.iterdir()] == ["projector.safetensors"]
    other = tiny.tiny_llava(seed=3)
    assert load_projector(other, tmp_path) == path
    assert (other.model.multi_modal_projector.linear_1.bias == trained.linear_1.bias).all()
