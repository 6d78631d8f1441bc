"""Pixels are LLaVA's, tokens are what the model expects."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_mole.model.config import ModelConfig
from llava_mole.model.processor import (
    build_processor,
    build_tokenizer,
    load_processor,
    pil_image_processor,
)
from tests import tiny

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def llava_pixels(image, size, mean, deviation):
    """LLaVA's expand2square, then CLIP's preprocessing, pixel by pixel with PIL and numpy."""
    image = image.convert("RGB")
    width, height = image.size
    side = max(width, height)
    square = Image.new("RGB", (side, side), tuple(int(m * 255) for m in mean))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    small = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    return ((small / 255 - np.array(mean)) / np.array(deviation)).transpose(2, 0, 1)


def random_image(width, height, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("shape", [(640, 427), (2, 5), (5, 2), (336, 336), (50, 49), (1000, 3)])
@pytest.mark.parametrize(
    ("size", "mean", "deviation"),
    [(336, CLIP_MEAN, CLIP_STD), (160, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))],
)
def test_pixels_equal_llavas_pad_to_square(shape, size, mean, deviation):
    image = random_image(*shape)
    processor = pil_image_processor(size, list(mean), list(deviation))
    actual = processor(image, return_tensors="np")["pixel_values"][0]
    expected = llava_pixels(image, size, mean, deviation)
    assert actual.shape == (3, size, size)
    # The same 8-bit pixels: half a grey level would be 0.007.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


def test_published_vectors():
    processor = pil_image_processor(640, list(CLIP_MEAN), list(CLIP_STD))
    pixels = processor(random_image(640, 427), return_tensors="np")["pixel_values"][0]
    pad = np.array([-0.011254, -0.011196, -0.001333])
    np.testing.assert_allclose(pixels[:, 105, 7], pad, atol=1e-6)
    assert np.abs(pixels[:, 106, :] - pad[:, None]).max() > 0.1
    tall = pil_image_processor(5, list(CLIP_MEAN), list(CLIP_STD))
    pixels = tall(random_image(2, 5), return_tensors="np")["pixel_values"][0]
    is_pad = np.abs(pixels - pad[:, None, None]).max(axis=(0, 1)) < 1e-6
    assert is_pad.tolist() == [True, False, False, True, True]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_modes_become_rgb(mode):
    image = random_image(20, 10, mode)
    processor = pil_image_processor(28, list(CLIP_MEAN), list(CLIP_STD))
    actual = processor(image, return_tensors="np")["pixel_values"][0]
    expected = llava_pixels(image, 28, CLIP_MEAN, CLIP_STD)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


def test_reloaded_processor_gives_the_same(tmp_path):
    config = ModelConfig(**tiny.tiny_model_section(tmp_path))
    processor = build_processor(config)
    processor.save_pretrained(tmp_path / "saved")
    again = load_processor(tmp_path / "saved")
    image = random_image(50, 30)
    one, two = (
        p(images=image, text="<image>\nhi", return_tensors="pt") for p in (processor, again)
    )
    assert torch.equal(one["pixel_values"], two["pixel_values"])
    assert torch.equal(one["input_ids"], two["input_ids"])
    assert again.chat_template == processor.chat_template
    assert again.tokenizer.padding_side == "left"
    assert again.tokenizer.model_max_length == 1024


def test_image_tokens_are_counted_for_both_strategies(tmp_path):
    for strategy, tokens in (("default", 4), ("full", 5)):
        section = tiny.tiny_model_section(tmp_path)
        section["vision_feature_select_strategy"] = strategy
        processor = build_processor(ModelConfig(**section))
        ids = processor(images=random_image(9, 9), text="<image>", return_tensors="pt").input_ids
        assert (ids == tiny.IMAGE_TOKEN_ID).sum() == tokens


def test_tokenizer_gains_image_and_pad(tmp_path):
    tokenizer = build_tokenizer(ModelConfig(**tiny.tiny_model_section(tmp_path)))
    assert tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [259, 260]
    assert tokenizer.pad_token_id == 260
    assert tokenizer("a<image>", add_special_tokens=False).input_ids[1:] == [259]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no LLaVA processor can be read .*processor_config"):
        load_processor(tmp_path)
    section = tiny.tiny_model_section(tmp_path) | {"tokenizer": str(tmp_path)}
    with pytest.raises(ValueError, match=r"no tokenizer can be read"):
        build_processor(ModelConfig(**section))
    section["tokenizer"] = None
    with pytest.raises(ValueError, match=r"set model\.tokenizer"):
        build_processor(ModelConfig(**section))
