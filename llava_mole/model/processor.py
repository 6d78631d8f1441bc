"""The processor: LLaVA's pad-to-square pixels, the tokenizer with ``<image>``, our template."""

from pathlib import Path

from transformers import AutoConfig, AutoProcessor, AutoTokenizer, LlavaProcessor
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from llava_mole.model.config import ModelConfig
from llava_mole.model.templates import IMAGE_TOKEN, template_for
from llava_mole.model.vision import num_prefix_tokens, pixel_statistics, vision_config

PAD_TOKEN = "<pad>"


def build_processor(config: ModelConfig) -> LlavaProcessor:
    """The processor of a model section: pixels, tokens and the template of ``conv_mode``.

    Raises:
        ValueError: a tokenizer or processor that can't be read.
    """
    if config.checkpoint:
        return load_processor(config.checkpoint, config.conv_mode, config.model_max_length)
    tower = vision_config(config)
    mean, deviation = pixel_statistics(config)
    return LlavaProcessor(
        image_processor=pil_image_processor(tower.image_size, mean, deviation),
        tokenizer=(tokenizer := build_tokenizer(config)),
        patch_size=tower.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=num_prefix_tokens(tower),
        chat_template=template_for(config.conv_mode, tokenizer).jinja,
    )


def build_tokenizer(config: ModelConfig) -> Tokenizer:
    """The language model's tokenizer with ``<image>`` and a ``<pad>`` of its own at the end.

    Vicuna's 32,000 tokens get ids 32000 and 32001, as in llava-hf's checkpoints.
    """
    source = config.tokenizer or config.language_model
    if not source:
        raise ValueError(
            "model.language_config describes a decoder without a tokenizer; set model.tokenizer "
            "to a folder or hub name that has one."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{source}: no tokenizer can be read ({error}); put tokenizer.json or "
            "tokenizer.model there, or set model.tokenizer."
        ) from error
    if tokenizer.eos_token is None:
        raise ValueError(
            f"{source}: the tokenizer has no eos_token, so a model could never learn to stop; set "
            "eos_token in its tokenizer_config.json."
        )
    if IMAGE_TOKEN not in tokenizer.get_added_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    # Padding with a token that means something else would be masked or learned by mistake.
    if tokenizer.pad_token in (None, tokenizer.eos_token, tokenizer.unk_token):
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = config.model_max_length
    return tokenizer


def pil_image_processor(
    size: int, mean: list[float], deviation: list[float]
) -> LlavaImageProcessorPil:
    """LLaVA's pixels: pad to a square in the mean colour, bicubic resize, scale, normalise.

    PIL's resize, not torchvision's, which gives other pixels and may be missing.
    """
    return LlavaImageProcessorPil(
        do_pad=True,
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=mean,
        image_std=deviation,
    )


def load_processor(
    folder: str | Path, conv_mode: str | None = None, model_max_length: int | None = None
) -> LlavaProcessor:
    """A saved processor, ours or llava-hf's, with LLaVA's pad-to-square pixels.

    Args:
        folder: folder or hub name.
        conv_mode: template to use; None keeps the saved one.
        model_max_length: longest sequence in tokens; None keeps the saved figure.

    Raises:
        ValueError: no processor there.
    """
    try:
        processor = AutoProcessor.from_pretrained(folder, backend="pil")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder}: {_remedy(error)}") from error
    if not isinstance(processor, LlavaProcessor):
        raise ValueError(
            f"{folder}: {_remedy(f'AutoProcessor finds a {type(processor).__name__} there')}"
        )
    saved = processor.image_processor
    size = saved.crop_size["height"]
    processor.image_processor = pil_image_processor(size, saved.image_mean, saved.image_std)
    if processor.patch_size is None or processor.vision_feature_select_strategy is None:
        # llava-hf's older checkpoints leave these to the model's config.
        llava = AutoConfig.from_pretrained(folder)
        processor.patch_size = llava.vision_config.patch_size
        processor.vision_feature_select_strategy = llava.vision_feature_select_strategy
        processor.num_additional_image_tokens = num_prefix_tokens(llava.vision_config)
    processor.tokenizer.padding_side = "left"
    if model_max_length:
        processor.tokenizer.model_max_length = model_max_length
    if conv_mode:
        processor.chat_template = template_for(conv_mode, processor.tokenizer).jinja
    return processor


def _remedy(reason: object) -> str:
    return (
        f"no LLaVA processor can be read ({reason}); it needs processor_config.json, "
        "tokenizer.json and tokenizer_config.json, which save_pretrained of a processor writes."
    )
