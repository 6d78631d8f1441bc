"""Tiny random decoders of many families, and adapters whose every weight matters."""

import torch
import transformers as tf
from peft import LoraConfig, get_peft_model

from llava_mole import MoleConfig
from llava_mole.tuner import lora_targets

VOCAB, WIDTH = 64, 32

_ROPE = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_HEADS = {**_ROPE, "head_dim": 8}
_MULTI = {k: v for k, v in _ROPE.items() if k != "num_key_value_heads"}
_OPT = {
    **{k: v for k, v in _MULTI.items() if k != "intermediate_size"},
    "ffn_dim": 64,
    "word_embed_proj_dim": WIDTH,
}

FAMILIES = {
    "llama": (tf.LlamaForCausalLM, tf.LlamaConfig, _ROPE),
    "mistral": (tf.MistralForCausalLM, tf.MistralConfig, _ROPE),
    "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config, _ROPE),
    "qwen3": (tf.Qwen3ForCausalLM, tf.Qwen3Config, _HEADS),
    "gemma": (tf.GemmaForCausalLM, tf.GemmaConfig, _HEADS),
    "gemma2": (tf.Gemma2ForCausalLM, tf.Gemma2Config, _HEADS),
    "gemma3": (tf.Gemma3ForCausalLM, tf.Gemma3TextConfig, _HEADS),
    "phi": (tf.PhiForCausalLM, tf.PhiConfig, _ROPE),
    "phi3": (tf.Phi3ForCausalLM, tf.Phi3Config, _ROPE),
    "opt": (tf.OPTForCausalLM, tf.OPTConfig, _OPT),
    "gpt_neox": (tf.GPTNeoXForCausalLM, tf.GPTNeoXConfig, _MULTI),
}


def decoder(family="llama", **overrides):
    """A fresh tiny model in eval mode; the same family gives the same weights."""
    model_class, config_class, sizes = FAMILIES[family]
    torch.manual_seed(1)
    config = config_class(**{**sizes, **overrides})
    # SDPA's CPU kernel and eager round differently; eager keeps comparisons free of masks' shapes.
    return model_class._from_config(config, attn_implementation="eager").eval()


def llava():
    """A tiny LLaVA with a CLIP tower of 28-pixel images and 4 image tokens."""
    torch.manual_seed(1)
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=28,
            patch_size=14,
        ),
        text_config=tf.LlamaConfig(**_ROPE),
        image_token_id=VOCAB - 1,
    )
    return tf.LlavaForConditionalGeneration(config).eval()


def llava_batch():
    """One image and a few words in each of two rows, the second one padded on the left."""
    image = [VOCAB - 1] * 4
    input_ids = torch.tensor([[1, *image, 5, 6, 7, 8], [0, 0, 1, *image, 9, 10]])
    return {
        "input_ids": input_ids,
        "attention_mask": (input_ids != 0).long(),
        "pixel_values": torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(2)),
        "labels": torch.where((input_ids == 0) | (input_ids == VOCAB - 1), -100, input_ids),
    }


def batch(rows=2, length=9):
    """Token ids without padding."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(3, VOCAB - 1, (rows, length), generator=generator)


def randomize(model, seed=4, std=0.3):
    """Gives every trainable weight a value, so that no zero B hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mole_" in name or "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return model


def mole(model, **options):
    """A model with a randomised MoLE adapter, in eval mode."""
    options = {"num_experts": 3, "r": 4, "lora_alpha": 8, **options}
    return randomize(get_peft_model(model, MoleConfig(**options))).eval()


def peft_lora(model, like):
    """PEFT's own LoRA on the same linears, with the weights of a one-expert MoLE model."""
    config = like.peft_config["default"]
    options = {"r": config.r, "lora_alpha": config.lora_alpha, "use_rslora": config.use_rslora}
    targets = lora_targets(model)
    lora = get_peft_model(model, LoraConfig(target_modules=targets, **options)).eval()
    weights = like.state_dict()
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_" in name:
                parameter.copy_(
                    weights[name] if name in weights else weights[mole_key(name, weights)][0]
                )
    return lora


def mole_key(lora_key, weights):
    """The MoLE parameter that stands where a LoRA parameter of an FFN's linear stands."""
    path, _, end = lora_key.rpartition(".lora_")  # ...mlp.gate_proj, A.default.weight
    owner, _, linear = path.rpartition(".")
    matrix = end[0]
    for ffn in (owner, f"{owner}.fc1"):
        key = f"{ffn}.mole_{linear}.default.{matrix}"
        if key in weights:
            return key
    raise KeyError(lora_key)
