"""Runs and checkpoints load back to the model that was saved."""

import dataclasses
import shutil

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from llava_mole import MoleConfig
from llava_mole.model import ModelConfig, build_model, build_processor, load_run, save_projector
from tests import tiny

INPUTS = {
    "input_ids": torch.tensor([[1, 259, 259, 259, 259, 40, 50, 60]]),
    "pixel_values": torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1)),
}


def logits(model):
    with torch.no_grad():
        return model(**INPUTS).logits


def write_config(run_dir, section):
    run_dir.mkdir(exist_ok=True)
    config = {"model": dataclasses.asdict(ModelConfig(**section)), "stage": "finetune", "seed": 1}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def finetuned(tmp_path):
    """A run directory of stage 2, and the model it came from."""
    section = tiny.tiny_model_section(tmp_path) | {"projector": str(tmp_path / "gone.safetensors")}
    config = ModelConfig(**section | {"projector": None})
    adapter = MoleConfig(num_experts=3, r=4, modules_to_save=["multi_modal_projector"])
    model = get_peft_model(build_model(config), adapter).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name or "mole" in name or "modules_to_save" in name:
                parameter.normal_(std=0.3)
    run_dir = tmp_path / "run"
    write_config(run_dir, section)
    model.save_pretrained(run_dir)
    build_processor(config).save_pretrained(run_dir)
    return run_dir, model


def test_finetuned_run(finetuned):
    run_dir, model = finetuned
    again, processor = load_run(run_dir)
    assert torch.equal(logits(again), logits(model))
    with again.disable_adapter():
        assert not torch.equal(logits(again), logits(model))
    assert processor.tokenizer.padding_side == "left"
    assert "USER: " in processor.chat_template
    _, chatml = load_run(run_dir, conv_mode="chatml")
    assert "<|im_start|>" in chatml.chat_template


def test_plain_lora_run_must_be_complete(tmp_path):
    section = tiny.tiny_model_section(tmp_path)
    lora = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|up_proj)")
    model = get_peft_model(build_model(ModelConfig(**section)), lora).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.3)
    write_config(tmp_path / "run", section)
    model.save_pretrained(tmp_path / "run")
    assert torch.equal(logits(load_run(tmp_path / "run")[0]), logits(model))
    weights = tmp_path / "run" / "adapter_model.safetensors"
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if "layers.1" not in k}, weights)
    with pytest.raises(ValueError, match="4 of the adapter's weights are missing, the first"):
        load_run(tmp_path / "run")


def test_checkpoint_folder_uses_the_runs_config(finetuned):
    run_dir, model = finetuned
    checkpoint = run_dir / "checkpoint-7"
    checkpoint.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.move(run_dir / name, checkpoint / name)
    again, processor = load_run(checkpoint)
    assert torch.equal(logits(again), logits(model))
    assert processor.image_token_id == tiny.IMAGE_TOKEN_ID
    with pytest.raises(
        ValueError, match=r"has not finished: give one of its checkpoints \(checkpoint-7\)"
    ):
        load_run(run_dir)
    shutil.rmtree(checkpoint)
    with pytest.raises(ValueError, match="has not finished: start its training again"):
        load_run(run_dir)


def test_stage_1_run(tmp_path):
    section = tiny.tiny_model_section(tmp_path)
    model = build_model(ModelConfig(**section))
    with torch.no_grad():
        model.model.multi_modal_projector.linear_1.weight.normal_()
    write_config(tmp_path / "run", section)
    save_projector(model, tmp_path / "run")
    again, processor = load_run(tmp_path / "run")
    assert torch.equal(logits(again), logits(model))
    assert processor.patch_size == tiny.PATCH_SIZE


def test_complete_checkpoint(tmp_path):
    config = ModelConfig(**tiny.tiny_model_section(tmp_path))
    model = build_model(config)
    model.save_pretrained(tmp_path / "llava")
    build_processor(config).save_pretrained(tmp_path / "llava")
    again, _ = load_run(tmp_path / "llava")
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(ValueError, match="--model-base is for runs"):
        load_run(tmp_path / "llava", model_base="x")


def language_model_run(tmp_path):
    folder = tmp_path / "lm"
    LlamaForCausalLM(tiny.tiny_text_config(vocab_size=259, pad_token_id=None)).save_pretrained(
        folder
    )
    tiny.tiny_tokenizer(image_token=False).save_pretrained(folder)
    section = tiny.tiny_model_section(tmp_path) | {"language_model": str(folder), "tokenizer": None}
    section.pop("language_config")
    model = build_model(ModelConfig(**section))
    write_config(tmp_path / "run", section)
    save_projector(model, tmp_path / "run")
    return folder, model


def test_model_base_replaces_the_language_model(tmp_path):
    folder, model = language_model_run(tmp_path)
    shutil.move(folder, tmp_path / "moved")
    with pytest.raises(ValueError, match="no tokenizer can be read"):
        load_run(tmp_path / "run")
    again, _ = load_run(tmp_path / "run", model_base=str(tmp_path / "moved"))
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("whole", [True, False])
def test_4bit_language_model(tmp_path, whole):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    _, model = language_model_run(tmp_path)
    source = tmp_path / "run"
    if whole:
        source = tmp_path / "llava"
        model.save_pretrained(source)
        load_run(tmp_path / "run")[1].save_pretrained(source)
    small = tiny.without_bfloat16_kernels(load_run(source, load_4bit=True)[0])
    linear = small.model.language_model.layers[0].mlp.up_proj
    assert isinstance(linear, bitsandbytes.nn.Linear4bit)
    assert type(small.lm_head) is torch.nn.Linear
    assert type(small.model.multi_modal_projector.linear_1) is torch.nn.Linear
    assert small.is_loaded_in_4bit
    with torch.no_grad():  # the full-precision model with the values that nf4 can hold
        for name, module in small.named_modules():
            if isinstance(module, bitsandbytes.nn.Linear4bit):
                weight = module.weight
                values = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
                model.get_submodule(name).weight.copy_(values)
    torch.testing.assert_close(logits(small), logits(model), rtol=0, atol=1e-3)


def test_errors(finetuned, tmp_path):
    run_dir, _ = finetuned
    with pytest.raises(ValueError, match="exclude each other"):
        load_run(run_dir, load_4bit=True, load_8bit=True)
    with pytest.raises(ValueError, match="need pretrained weights"):
        load_run(run_dir, load_4bit=True)
    with pytest.raises(ValueError, match="no such folder"):
        load_run(tmp_path / "nothing" / "here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"neither config\.yaml"):
        load_run(tmp_path / "empty")
    weights = run_dir / "adapter_model.safetensors"
    state = load_file(weights)
    removed = next(k for k in state if "mole" in k)
    save_file({k: v for k, v in state.items() if k != removed}, weights)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors does not fit .* 1 missing"):
        load_run(run_dir)
    (run_dir / "config.yaml").write_text("model: {checkpoints: x}")
    with pytest.raises(ValueError, match="no usable model section"):
        load_run(run_dir)
