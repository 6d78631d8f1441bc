"""The open_clip tower against HF's CLIP, and inside transformers' LLaVA."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaForConditionalGeneration

from llava_mole.model.build import build_model
from llava_mole.model.config import ModelConfig
from llava_mole.model.open_clip_tower import OpenClipVisionModel, describe
from llava_mole.model.vision import load_visual_weights
from tests import tiny
from tests.model.clip_weights import to_open_clip


def clip_pair(tmp_path, width=64, heads=2, layers=3, size=42):
    """HF's CLIP and our tower with the same random weights."""
    hf = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            image_size=size,
            patch_size=14,
            hidden_act="quick_gelu",
        )
    ).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.normal_(std=0.1)
    cfg = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": size,
            "patch_size": 14,
            "width": width,
            "layers": layers,
            "head_width": width // heads,
            "mlp_ratio": 2.0,
        },
    }
    tower = OpenClipVisionModel(describe("pair", cfg)).eval()
    file = tmp_path / "clip.safetensors"
    save_file({k: v.contiguous() for k, v in to_open_clip(hf.state_dict()).items()}, file)
    load_visual_weights(tower, file)
    return hf, tower


@pytest.mark.parametrize("shape", [(32, 2, 2, 28), (64, 1, 4, 42), (128, 2, 3, 56)])
@pytest.mark.parametrize("grad", [True, False])
def test_hidden_states_equal_hf_clip_exactly(tmp_path, shape, grad):
    hf, tower = clip_pair(tmp_path, *shape)
    pixels = torch.randn(2, 3, shape[3], shape[3])
    with torch.set_grad_enabled(grad):
        expected = hf(pixels, output_hidden_states=True).hidden_states
        actual = tower(pixels, output_hidden_states=True).hidden_states
    assert len(actual) == len(expected) == shape[2] + 1
    for mine, theirs in zip(actual, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_only_the_asked_hidden_state_is_computed(tmp_path):
    _, tower = clip_pair(tmp_path)
    pixels = torch.randn(1, 3, 42, 42)
    all_states = tower(pixels, output_hidden_states=True).hidden_states
    calls = []
    tower.visual.transformer.resblocks[-1].register_forward_hook(lambda *_: calls.append(1))
    states = tower(pixels, output_hidden_states=-2).hidden_states
    assert not calls
    assert torch.equal(states[-2], all_states[-2])
    assert [s is None for s in states] == [True, True, False, True]
    pair = tower(pixels, output_hidden_states=[1, -1]).hidden_states
    assert torch.equal(pair[1], all_states[1])
    assert torch.equal(pair[-1], all_states[-1])


def test_llava_logits_equal_transformers_with_hf_clip(tmp_path, llava):
    hf, tower = clip_pair(tmp_path, 32, 2, 2, 28)
    llava.model.vision_tower.load_state_dict(hf.state_dict())
    ours = tiny.tiny_llava()
    ours.model.vision_tower = tower
    inputs = {
        "input_ids": torch.tensor([[1, 259, 259, 259, 259, 40, 50, 60]]),
        "pixel_values": torch.randn(1, 3, 28, 28),
    }
    with torch.no_grad():
        assert torch.equal(ours(**inputs).logits, llava(**inputs).logits)


def test_precomputed_features_pass_through(tmp_path):
    config = ModelConfig(**tiny.tiny_model_section(tmp_path))
    model = build_model(config)
    ids = torch.tensor([[1, 259, 259, 259, 259, 40, 50]])
    pixels = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        features = model.model.vision_tower(pixels, output_hidden_states=-2).hidden_states[-2]
        assert features.shape == (1, 5, 32)
        expected = model(input_ids=ids, pixel_values=pixels).logits
        assert torch.equal(model(input_ids=ids, pixel_values=features).logits, expected)
    with pytest.raises(ValueError, match="feature cache"):
        model.model.vision_tower(torch.zeros(1, 5, 31))
    with pytest.raises(ValueError, match=r"reads \(N, 3, 28, 28\)"):
        model.model.vision_tower(torch.zeros(1, 3, 32, 32))


def timm_section(tmp_path, layer=-1):
    section = tiny.tiny_model_section(tmp_path)
    vision_cfg = {"timm_model_name": "tf_efficientnet_lite0", "image_size": 64}
    section |= {
        "vision_tower": "tf_efficientnet_lite0",
        "vision_config": {"embed_dim": 8, "vision_cfg": vision_cfg},
        "image_size": 64,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": "full",
    }
    return section


@pytest.mark.parametrize(("layer", "width", "tokens"), [(-1, 1280, 4), (-2, 320, 4), (3, 112, 16)])
def test_timm_trunk_gives_the_chosen_stage(tmp_path, layer, width, tokens):
    model = build_model(ModelConfig(**timm_section(tmp_path, layer)))
    assert model.config.vision_config.hidden_size == width
    assert model.config.image_seq_length == tokens
    pixels = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    trunk = model.model.vision_tower.visual.trunk
    with torch.no_grad():
        features = model.get_image_features(pixels, return_dict=True).pooler_output
        if layer == -1:  # timm's own answer, flattened by hand
            maps = trunk.forward_features(pixels)
            rows = [maps[:, :, y, x] for y in range(2) for x in range(2)]
            expected = model.model.multi_modal_projector(torch.stack(rows, dim=1))
            torch.testing.assert_close(torch.stack(list(features)), expected, rtol=0, atol=1e-6)
    assert torch.stack(list(features)).shape == (2, tokens, tiny.HIDDEN_SIZE)


def test_frozen_tower_never_changes_in_training(tmp_path):
    model = build_model(ModelConfig(**timm_section(tmp_path)))
    model.model.vision_tower.requires_grad_(False)
    model.train()
    before = {k: v.clone() for k, v in model.model.vision_tower.state_dict().items()}
    model.model.vision_tower(torch.randn(2, 3, 64, 64))
    after = model.model.vision_tower.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("section", [tiny.tiny_model_section, timm_section])
def test_save_and_reload_keep_every_bit(tmp_path, section):
    model = build_model(ModelConfig(**section(tmp_path)))
    model.save_pretrained(tmp_path / "saved")
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved")
    state, other = model.state_dict(), again.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[k], other[k]) for k in state)


def test_bfloat16_and_gradient_checkpointing(tmp_path):
    config = ModelConfig(**tiny.tiny_model_section(tmp_path), dtype="bfloat16")
    model = build_model(config)
    model.model.vision_tower.requires_grad_(False)
    inputs = {
        "input_ids": torch.tensor([[1, 259, 259, 259, 259, 40, 50]]),
        "pixel_values": torch.randn(1, 3, 28, 28),
        "labels": torch.tensor([[-100, -100, -100, -100, -100, 40, 50]]),
    }
    model.train()
    loss = model(**inputs).loss
    loss.backward()
    plain = model.model.multi_modal_projector.linear_1.weight.grad.clone()
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    checkpointed = model(**inputs).loss
    checkpointed.backward()
    assert torch.equal(loss, checkpointed)
    assert torch.equal(plain, model.model.multi_modal_projector.linear_1.weight.grad)
    assert all(p.grad is None for p in model.model.vision_tower.parameters())


def test_raw_timm_weights_and_other_resolutions_load(tmp_path):
    import timm

    trunk = timm.create_model("tf_efficientnet_lite0", num_classes=5)
    file = tmp_path / "lite0.pt"
    torch.save(trunk.state_dict(), file)
    model = build_model(ModelConfig(**timm_section(tmp_path), vision_pretrained=str(file)))
    loaded = model.model.vision_tower.visual.trunk.conv_head.weight
    assert torch.equal(loaded, trunk.conv_head.weight)

    hf, _ = clip_pair(tmp_path, 32, 2, 2, 42)  # positions of a 3x3 grid into a 2x2 one
    section = tiny.tiny_model_section(tmp_path)
    file = tmp_path / "clip.safetensors"
    model = build_model(ModelConfig(**section, vision_pretrained=str(file)))
    visual = model.model.vision_tower.visual
    assert visual.positional_embedding.shape == (5, 32)
    assert torch.equal(visual.class_embedding, hf.state_dict()["embeddings.class_embedding"])


def test_wrong_weights_are_named(tmp_path):
    hf, _ = clip_pair(tmp_path, 64, 2, 2, 28)
    file = tmp_path / "clip.safetensors"
    section = tiny.tiny_model_section(tmp_path)
    with pytest.raises(ValueError, match=r"clip\.safetensors: .* is .* but the vision tower"):
        build_model(ModelConfig(**section, vision_pretrained=str(file)))
    save_file({"visual.conv1.weight": torch.zeros(32, 3, 14, 14)}, file)
    with pytest.raises(ValueError, match="no weight 'class_embedding'"):
        build_model(ModelConfig(**section, vision_pretrained=str(file)))
    torch.save({"a": hf}, tmp_path / "pickled.pt")
    with pytest.raises(ValueError, match="weights_only=True"):
        build_model(ModelConfig(**section, vision_pretrained=str(tmp_path / "pickled.pt")))
    with pytest.raises(ValueError, match="neither a file nor a tag"):
        build_model(ModelConfig(**section, vision_pretrained="laion9b"))
