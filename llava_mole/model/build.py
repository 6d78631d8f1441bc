"""``build_model``: transformers' LLaVA from a checkpoint, from pretrained parts or configs."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

import llava_mole.model.open_clip_tower  # noqa: F401  (registers the tower with AutoModel)
from llava_mole.model.config import ModelConfig
from llava_mole.model.processor import build_tokenizer
from llava_mole.model.projector import load_projector
from llava_mole.model.templates import IMAGE_TOKEN
from llava_mole.model.vision import build_tower, num_prefix_tokens, vision_config

VOCABULARY_MULTIPLE = 64
_QUANTIZATION_MARKS = (
    "hf_quantizer",
    "is_loaded_in_4bit",
    "is_loaded_in_8bit",
    "is_quantized",
    "quantization_method",
)


def build_model(
    config: ModelConfig, device: str = "cpu", quantization_config: Any = None
) -> LlavaForConditionalGeneration:
    """The LLaVA of a model section, in eval mode, all of it trainable (see `freeze`).

    Args:
        config: see `ModelConfig` for the three ways to build.
        device: ``meta`` builds the shapes only and reads no weights.
        quantization_config: transformers' ``BitsAndBytesConfig`` for the language model's linears.

    Raises:
        ValueError: anything that is missing or doesn't fit, naming file and remedy.
    """
    if config.checkpoint:
        model = _from_checkpoint(config, device, quantization_config)
    elif device == "meta":
        model = _on_meta(config)
    else:
        model = _from_parts(config, device, quantization_config)
    if config.projector and device != "meta":
        load_projector(model, config.projector)
    if device != "meta" and quantization_config is None:
        model = model.to(device)
    return model.eval()


def _from_checkpoint(config: ModelConfig, device: str, quantization_config: Any):
    source = config.checkpoint
    llava = _read_config(source, "model.checkpoint")
    if hasattr(llava, "mm_vision_tower") or not isinstance(llava, LlavaConfig):
        raise ValueError(
            f"model.checkpoint: {source} is a {llava.model_type!r} in another layout than "
            "transformers' LLaVA; take its llava-hf conversion, or give language_model and "
            "projector."
        )
    if device == "meta":
        with torch.device("meta"):
            return LlavaForConditionalGeneration(llava).to(_dtype(config))
    extra = {}
    if quantization_config is not None:
        extra = {"quantization_config": quantization_config, "device_map": {"": device}}
    model, info = _from_pretrained(
        LlavaForConditionalGeneration, source, config, "model.checkpoint", **extra
    )
    if info["missing_keys"]:
        raise ValueError(
            f"model.checkpoint: {source} lacks {len(info['missing_keys'])} weights, the first "
            f"{sorted(info['missing_keys'])[0]!r}; download or save it again."
        )
    return model


def _on_meta(config: ModelConfig) -> LlavaForConditionalGeneration:
    """Shapes only; without a tokenizer at hand ``<image>`` and ``<pad>`` follow the vocabulary."""
    text = _text_config(config)
    image_id, pad_id, tokens = text.vocab_size, text.vocab_size + 1, text.vocab_size + 2
    source = config.tokenizer or config.language_model
    if source and Path(source).is_dir():
        tokenizer = build_tokenizer(config)
        image_id, pad_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), tokenizer.pad_token_id
        tokens = len(tokenizer)
    if tokens > text.vocab_size:
        text.vocab_size = _padded(tokens)
    llava = _llava_config(config, text, image_id, pad_token_id=pad_id)
    with torch.device("meta"):
        return LlavaForConditionalGeneration(llava).to(_dtype(config))


def _from_parts(
    config: ModelConfig, device: str, quantization_config: Any
) -> LlavaForConditionalGeneration:
    """Assembles language model, tower and projector; random parts come from ``seed``."""
    tokenizer = build_tokenizer(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        language_model = _language_model(config, device, quantization_config)
        _grow_embeddings(language_model, len(tokenizer))
        llava = _llava_config(
            config,
            language_model.config,
            tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            tokenizer.pad_token_id,
        )
        # The shell has no storage: its parts are replaced by loaded ones, buffers included.
        with torch.device("meta"):
            model = LlavaForConditionalGeneration(llava)
        model.model.language_model = language_model.base_model
        model.lm_head = language_model.get_output_embeddings()
        # Quantised weights were loaded where they stay, and the rest joins them.
        place = model.lm_head.weight.device
        tower = build_tower(config, llava.vision_config, _dtype(config))
        model.model.vision_tower = tower.to(place)
        # torch's own initialisation of the linears, as in LLaVA's stage 1.
        projector = LlavaMultiModalProjector(llava).to(_dtype(config))
        model.model.multi_modal_projector = projector.to(place)
    for mark in _QUANTIZATION_MARKS:
        if quantization_config is not None and hasattr(language_model, mark):
            setattr(model, mark, getattr(language_model, mark))
    model.tie_weights()
    model.generation_config = language_model.generation_config
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def _language_model(config: ModelConfig, device: str, quantization_config: Any) -> PreTrainedModel:
    if not config.language_model:
        if quantization_config is not None:
            raise ValueError(
                "4- and 8-bit loading need pretrained weights: set model.language_model or "
                "model.checkpoint, or leave --load-4bit and --load-8bit out."
            )
        model = AutoModelForCausalLM.from_config(
            _text_config(config), dtype=_dtype(config), **_attention(config)
        )
    else:
        _read_config(config.language_model, "model.language_model")  # its error is the clearer one
        extra = {}
        if quantization_config is not None:
            extra = {"quantization_config": quantization_config, "device_map": {"": device}}
        model, info = _from_pretrained(
            AutoModelForCausalLM, config.language_model, config, "model.language_model", **extra
        )
        if info["missing_keys"]:
            raise ValueError(
                f"model.language_model: {config.language_model} lacks weights, the first "
                f"{sorted(info['missing_keys'])[0]!r}; download it again."
            )
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ValueError(
            f"model.language_model: {type(model).__name__} has a biased lm_head, which "
            "transformers' LLaVA has no place for; take a decoder without one, as Llama or Qwen."
        )
    return model


def _from_pretrained(auto, source: str, config: ModelConfig, key: str, **extra):
    """``from_pretrained`` with its loading report, its file errors made ValueErrors."""
    try:
        return auto.from_pretrained(
            source, dtype=_dtype(config), output_loading_info=True, **_attention(config), **extra
        )
    except OSError as error:
        raise ValueError(
            f"{key}: {source} has no weights that can be read ({error}); a folder needs "
            "model.safetensors, or its shards and model.safetensors.index.json."
        ) from error


def _grow_embeddings(model: PreTrainedModel, num_tokens: int) -> None:
    """Adds rows for new tokens, each the mean of the old ones; the count a multiple of 64.

    The mean keeps the new tokens' logits ordinary and is the same on every machine.
    """
    old = model.get_input_embeddings().weight.shape[0]
    if num_tokens <= old:
        return
    model.resize_token_embeddings(_padded(num_tokens), mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[old:] = layer.weight[:old].float().mean(dim=0).to(layer.weight.dtype)


def _llava_config(
    config: ModelConfig, text: PreTrainedConfig, image_id: int, pad_token_id: int
) -> LlavaConfig:
    tower = vision_config(config)
    patches = (tower.image_size // tower.patch_size) ** 2
    full = config.vision_feature_select_strategy == "full"
    # Left out where null, so that the decoder's own choice stays.
    special = {k: getattr(text, k, None) for k in ("bos_token_id", "eos_token_id")}
    return LlavaConfig(
        text_config=text,
        vision_config=tower,
        image_token_index=image_id,
        image_seq_length=patches + (num_prefix_tokens(tower) if full else 0),
        vision_feature_layer=config.vision_feature_layer,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        tie_word_embeddings=text.tie_word_embeddings,
        pad_token_id=pad_token_id,
        **{k: v for k, v in special.items() if v is not None},
        **_attention(config),
    )


def _text_config(config: ModelConfig) -> PreTrainedConfig:
    if config.language_config is None:
        return _read_config(config.language_model, "model.language_model")
    fields = dict(config.language_config)
    model_type = fields.pop("model_type", None)
    if model_type is None:
        raise ValueError(
            "model.language_config has no model_type; write one of transformers', e.g. llama."
        )
    try:
        return AutoConfig.for_model(model_type, **fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"model.language_config: {error}") from error


def _read_config(source: str, key: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        kind = "folder" if Path(source).is_dir() else "folder or hub name"
        raise ValueError(
            f"{key}: {source} is no {kind} with a config.json that transformers can read "
            f"({error}); check the path, or download the model first."
        ) from error


def _attention(config: ModelConfig) -> dict[str, str]:
    chosen = config.attn_implementation
    return {"attn_implementation": chosen} if chosen else {}


def _dtype(config: ModelConfig) -> torch.dtype:
    return getattr(torch, config.dtype)


def _padded(num_tokens: int) -> int:
    return math.ceil(num_tokens / VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
