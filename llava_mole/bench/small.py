"""A small LLaVA with random weights and a tokenizer of its own: nothing is downloaded."""

import tempfile
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from llava_mole.model.build import build_model
from llava_mole.model.config import ModelConfig
from llava_mole.model.processor import build_processor
from llava_mole.model.templates import VICUNA_SYSTEM

_VOCABULARY = 512
_HEAD = 64
_VISION = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": 112,
        "patch_size": 16,
        "width": 128,
        "layers": 3,
        "head_width": 64,
    },
}


def small_llava(
    size: Sequence[int], dtype: str = "float32"
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Model and processor: a Llama, an open_clip ViT of 49 patches, the MLP projector.

    The vocabulary is tiny, so that next to nothing but decoder layers is measured: a head of
    50,000 words would bring every ratio nearer to one.

    Args:
        size: width, FFN width and number of layers of the decoder.
        dtype: of all weights.
    """
    width, ffn, layers = size
    heads = width // _HEAD
    if width % _HEAD:
        raise ValueError(f"--size: {width} is no width; take a multiple of {_HEAD}")
    with tempfile.TemporaryDirectory(prefix="llava-mole-tokenizer-") as folder:
        small_tokenizer().save_pretrained(folder)
        config = ModelConfig(
            language_config={
                "model_type": "llama",
                "vocab_size": _VOCABULARY,
                "hidden_size": width,
                "intermediate_size": ffn,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "max_position_embeddings": 2048,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            tokenizer=folder,
            vision_tower="small-vit",
            vision_config=_VISION,
            dtype=dtype,
        )
        model = build_model(config)
        # Wide embeddings keep tokens apart through random layers, as in a trained model; else all
        # of them would choose the same expert.
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            model.get_input_embeddings().weight.normal_(generator=generator)
        return model, build_processor(config)


def small_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the templates' special tokens, trained on a few words."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([VICUNA_SYSTEM], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
