"""Tiny models for tests, built from configs in code: nothing is downloaded, everything is seeded.

``tiny_llava()`` is a real ``LlavaForConditionalGeneration``: a two-layer Llama of width 32, a
two-layer ViT of width 32 on 28-pixel images with 14-pixel patches (so P = 4 image tokens) and the
MLP projector. ``tiny_tokenizer()`` is a fast byte-level tokenizer with LLaMA's special ids.
"""

import json
from pathlib import Path

import torch
from peft import get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from llava_mole import MoleConfig

IMAGE_SIZE = 28
PATCH_SIZE = 14
NUM_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
VISION_WIDTH = 32
HIDDEN_SIZE = 32
# <unk> <s> </s>, 256 bytes, <image>, <pad>: 261 rows, padded to a multiple of 64 as for Vicuna.
IMAGE_TOKEN_ID = 259
PAD_TOKEN_ID = 260
VOCAB_SIZE = 320


def tiny_tokenizer(image_token: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level fast tokenizer: one token a byte, ``<s>`` in front, offsets in characters.

    Args:
        image_token: False leaves ``<image>`` and ``<pad>`` out, as in a bare language model.
    """
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    special = ["<unk>", "<s>", "</s>", *(["<image>", "<pad>"] if image_token else [])]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    if image_token:
        names |= {"pad_token": "<pad>", "additional_special_tokens": ["<image>"]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **names)


def tiny_processor(chat_template: str | None = None) -> LlavaProcessor:
    """A ``LlavaProcessor`` that pads to a square and emits 4 image tokens an image."""
    return LlavaProcessor(
        image_processor=LlavaImageProcessorPil(
            do_pad=True,
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        ),
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )


def tiny_vision_config() -> CLIPVisionConfig:
    """A CLIP ViT of width 32 with two heads and ``quick_gelu``."""
    return CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_act="quick_gelu",
    )


def tiny_text_config(**overrides) -> LlamaConfig:
    """A two-layer Llama; any ``LlamaConfig`` field can be overridden."""
    fields = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": PAD_TOKEN_ID,
        # Wider than Llama's 0.02 so that outputs depend visibly on inputs at this size.
        "initializer_range": 0.2,
    }
    return LlamaConfig(**(fields | overrides))


def tiny_config(**text_overrides) -> LlavaConfig:
    """The ``LlavaConfig`` of `tiny_llava`."""
    return LlavaConfig(
        vision_config=tiny_vision_config(),
        text_config=tiny_text_config(**text_overrides),
        image_token_index=IMAGE_TOKEN_ID,
        image_seq_length=NUM_IMAGE_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        pad_token_id=PAD_TOKEN_ID,
        bos_token_id=1,
        eos_token_id=2,
    )


def tiny_llava(seed: int = 0, **text_overrides) -> LlavaForConditionalGeneration:
    """A random LLaVA of about 60,000 parameters in float32, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(tiny_config(**text_overrides)).eval()


def random_mole(model, std: float = 0.2, **options):
    """``model`` with a MoLE (K = 3, r = 4) whose experts and LoRAs do something, in eval mode."""
    model = get_peft_model(model, MoleConfig(**{"num_experts": 3, "r": 4, **options})).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name or "mole" in name:
                parameter.normal_(std=std, generator=generator)
    return model


def without_bfloat16_kernels(model):
    """A 4-bit model that computes the same on every CPU.

    With AVX512-BF16 bitsandbytes packs a weight at the first forward in evaluation, blocks of 64 a
    row, and multiplies in bfloat16 from then on, but not in training.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def tiny_model_section(folder: Path, seed: int = 0, open_clip: bool = True) -> dict:
    """A ``model:`` section (`ModelConfig` fields) of the same size, random from ``seed``.

    Args:
        folder: where the tokenizer is written, so that a config can name it.
        seed: of the random weights.
        open_clip: an open_clip ViT (takes precomputed features too), else HF's CLIP.
    """
    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        tiny_tokenizer(image_token=False).save_pretrained(tokenizer)
    text = json.loads(tiny_text_config(vocab_size=259, pad_token_id=None).to_json_string())
    if open_clip:
        vision = {
            "embed_dim": 16,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH_SIZE,
                "width": VISION_WIDTH,
                "layers": 2,
                "head_width": 16,
                "mlp_ratio": 2.0,
            },
        }
    else:
        vision = json.loads(tiny_vision_config().to_json_string())
    return {
        "language_config": text,
        "tokenizer": str(tokenizer),
        "vision_config": vision,
        "vision_tower": "tiny-vit" if open_clip else "hf:tiny-vit",
        "seed": seed,
        "image_size": IMAGE_SIZE,
        "model_max_length": 1024,
    }
