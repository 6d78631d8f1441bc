"""Every way to build a model, against transformers' own LLaVA on the same weights."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

from llava_mole.model.build import build_model
from llava_mole.model.config import ModelConfig
from llava_mole.model.freeze import count_parameters
from llava_mole.model.processor import build_processor
from llava_mole.model.projector import save_projector
from tests import tiny

INPUTS = {
    "input_ids": torch.tensor([[1, 259, 259, 259, 259, 40, 50, 60, 2]]),
    "pixel_values": torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1)),
}
VICUNA = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}
CLIP_L = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}


@pytest.fixture
def parts(tmp_path):
    """A language model's folder, a CLIP folder and LLaVA's mm_projector.bin, all random."""
    language_model = LlamaForCausalLM(tiny.tiny_text_config(vocab_size=259, pad_token_id=None))
    language_model.save_pretrained(tmp_path / "lm")
    tiny.tiny_tokenizer(image_token=False).save_pretrained(tmp_path / "lm")
    clip = CLIPVisionModel(tiny.tiny_vision_config())
    clip.save_pretrained(tmp_path / "clip")
    projector = {
        "model.mm_projector.0.weight": torch.randn(32, 32) * 0.3,
        "model.mm_projector.0.bias": torch.randn(32) * 0.3,
        "model.mm_projector.2.weight": torch.randn(32, 32) * 0.3,
        "model.mm_projector.2.bias": torch.randn(32) * 0.3,
    }
    torch.save(projector, tmp_path / "mm_projector.bin")
    config = ModelConfig(
        language_model=str(tmp_path / "lm"),
        vision_tower=f"hf:{tmp_path / 'clip'}",
        projector=str(tmp_path / "mm_projector.bin"),
    )
    return config, language_model, clip, projector


def test_parts_equal_transformers_llava(parts):
    config, language_model, clip, projector = parts
    model = build_model(config)

    # Put together by hand, weight by weight, in a LLaVA that transformers made.
    reference = tiny.tiny_llava()
    state = {f"model.vision_tower.{k}": v for k, v in clip.state_dict().items()}
    for ours, theirs in (("linear_1", "0"), ("linear_2", "2")):
        for part in ("weight", "bias"):
            key = f"model.multi_modal_projector.{ours}.{part}"
            state[key] = projector[f"model.mm_projector.{theirs}.{part}"]
    for key, value in language_model.state_dict().items():
        if value.shape[0] == 259:
            rows = value.numpy().astype(np.float64)
            new = np.repeat(rows.mean(axis=0, keepdims=True), 320 - 259, axis=0)
            value = torch.from_numpy(np.concatenate([rows, new])).float()
        name = key if key.startswith("lm_head") else "model.language_" + key
        state[name] = value
    reference.load_state_dict(state)

    with torch.no_grad():
        ours, theirs = model(**INPUTS).logits, reference(**INPUTS).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert ours.abs().max() > 0.1
    assert model.config.image_token_index == 259
    assert model.generation_config.eos_token_id == 2


def test_embeddings_grow_by_their_mean(parts):
    config, language_model, _, _ = parts
    model = build_model(config)
    for ours, theirs in (
        (model.get_input_embeddings(), language_model.get_input_embeddings()),
        (model.get_output_embeddings(), language_model.get_output_embeddings()),
    ):
        assert ours.weight.shape == (320, 32)
        assert torch.equal(ours.weight[:259], theirs.weight)
        mean = theirs.weight.double().mean(dim=0).float()
        torch.testing.assert_close(ours.weight[259:], mean.expand(61, -1), rtol=0, atol=1e-7)


def test_tied_embeddings_stay_tied_and_reload(tmp_path):
    section = tiny.tiny_model_section(tmp_path)
    section["language_config"]["tie_word_embeddings"] = True
    model = build_model(ModelConfig(**section))
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path / "saved")
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert again.lm_head.weight is again.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(model(**INPUTS).logits, again(**INPUTS).logits)


@pytest.mark.parametrize("open_clip", [True, False])
def test_checkpoint_equals_transformers(tmp_path, open_clip):
    section = tiny.tiny_model_section(tmp_path, open_clip=open_clip)
    config = ModelConfig(**section)
    model = build_model(config)
    model.save_pretrained(tmp_path / "saved")
    build_processor(config).save_pretrained(tmp_path / "saved")
    ours = build_model(ModelConfig(checkpoint=str(tmp_path / "saved")))
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(ours(**INPUTS).logits, theirs(**INPUTS).logits)
    assert build_processor(ModelConfig(checkpoint=str(tmp_path / "saved"))).image_token_id == 259


def test_random_weights_are_a_function_of_the_seed(tmp_path):
    states = []
    for seed in (0, 0, 1):
        before = torch.random.get_rng_state()
        model = build_model(ModelConfig(**tiny.tiny_model_section(tmp_path, seed=seed)))
        assert torch.equal(before, torch.random.get_rng_state())
        torch.manual_seed(seed + 10)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    for part in ("vision_tower.visual.conv1", "multi_modal_projector.linear_1", "layers.0.mlp"):
        key = next(k for k in states[0] if part in k)
        assert not torch.equal(states[0][key], states[2][key])


@pytest.mark.parametrize("tower", [{}, {"vision_tower": "hf:x", "vision_config": CLIP_L}])
def test_llava_7b_on_meta_has_its_parameters(tower):
    config = ModelConfig(language_config=VICUNA, dtype="bfloat16", **tower)
    model = build_model(config, device="meta")
    assert sum(p.numel() for p in model.parameters()) == 7_063_427_072
    counts = count_parameters(model)
    assert counts["vision_tower"].total == 303_507_456
    assert counts["multi_modal_projector"].total == 20_979_712
    assert model.config.image_token_index == 32000
    assert model.config.image_seq_length == 576
    assert model.dtype == torch.bfloat16


def test_projector_of_a_run_directory(tmp_path):
    section = tiny.tiny_model_section(tmp_path)
    trained = build_model(ModelConfig(**section | {"seed": 5}))
    save_projector(trained, tmp_path / "stage1")
    model = build_model(ModelConfig(**section, projector=str(tmp_path / "stage1")))
    ours, theirs = (m.model.multi_modal_projector.state_dict() for m in (model, trained))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_errors_name_file_and_remedy(parts, tmp_path):
    config, *_ = parts

    def fails(match, **changes):
        with pytest.raises(ValueError, match=match):
            build_model(ModelConfig(**(vars(config) | changes)))

    wrong = {"model.mm_projector.0.weight": torch.zeros(32, 1024)}
    torch.save(wrong, tmp_path / "wrong.bin")
    fails(r"wrong\.bin linear_1\.weight is \(32, 1024\)", projector=str(tmp_path / "wrong.bin"))
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.bin")
    fails(r"other\.bin has no linear_1\.weight", projector=str(tmp_path / "other.bin"))
    fails("neither projector.safetensors nor", projector=str(tmp_path / "lm"))
    fails("does not exist", projector=str(tmp_path / "absent.bin"))
    absent = {"language_model": str(tmp_path / "absent"), "tokenizer": str(tmp_path / "lm")}
    fails("no folder or hub name", **absent)
    fails("no config.json can be read", vision_tower=f"hf:{tmp_path}")
    fails("which open_clip doesn't know", vision_tower="ViT-XXL")
    (tmp_path / "lm" / "model.safetensors").unlink()
    fails(r"lm has no weights that can be read .* model\.safetensors")


def test_checkpoint_errors(tmp_path):
    config = ModelConfig(**tiny.tiny_model_section(tmp_path))
    folder = tmp_path / "saved"
    build_model(config).save_pretrained(folder)
    checkpoint = ModelConfig(checkpoint=str(folder))
    with pytest.raises(ValueError, match=r"saved: no LLaVA processor"):
        build_processor(checkpoint)
    original = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(original | {"mm_vision_tower": "openai/clip"}))
    with pytest.raises(ValueError, match="llava-hf conversion"):
        build_model(checkpoint)
    (folder / "config.json").write_text(json.dumps(original))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights that can be read"):
        build_model(checkpoint)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({}, "names no language model"),
        ({"checkpoint": "a", "language_model": "b"}, "complete LLaVA"),
        ({"checkpoint": "a", "conv_mode": "v0"}, "conv_mode is 'v0'"),
        ({"checkpoint": "a", "dtype": "fp8"}, "dtype is 'fp8'"),
        ({"checkpoint": "a", "model_max_length": 0}, "must be >= 1"),
    ],
)
def test_config_errors(fields, match):
    with pytest.raises(ValueError, match=match):
        ModelConfig(**fields)


@pytest.mark.parametrize("there", [False, True])
def test_meta_has_the_tokens_that_a_tokenizer_at_hand_really_adds(parts, tmp_path, there):
    """Two, or none where ``<image>`` and ``<pad>`` are there already."""
    config, *_ = parts
    if there:
        text = tiny.tiny_text_config(vocab_size=261)
        LlamaForCausalLM(text).save_pretrained(tmp_path / "lm")
        tiny.tiny_tokenizer().save_pretrained(tmp_path / "lm")
    loaded, shapes = build_model(config), build_model(config, device="meta")
    assert {k: v.shape for k, v in shapes.state_dict().items()} == {
        k: v.shape for k, v in loaded.state_dict().items()
    }
    for key in ("image_token_id", "pad_token_id"):
        assert getattr(shapes.config, key) == getattr(loaded.config, key)


def test_a_tower_without_class_token_needs_the_full_strategy():
    config = ModelConfig(language_config=VICUNA, vision_tower="ViT-B-16-SigLIP")
    with pytest.raises(ValueError, match="vision_feature_select_strategy: full"):
        build_model(config, device="meta")
