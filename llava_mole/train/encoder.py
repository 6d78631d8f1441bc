"""The one place where a run's settings become an `Encoder`.

Training, ``data check`` and ``data prepare`` all come here, so that the lengths that one of them
writes down are the lengths another one means.
"""

from typing import Any

from llava_mole.data.tokens.encode import Encoder, count_image_tokens
from llava_mole.model.config import ModelConfig
from llava_mole.model.templates import template_for


def encoder_for(model: ModelConfig, processor: Any, overlong: str = "error") -> Encoder:
    """Record to ids and labels, as the model of ``model`` reads them.

    Args:
        model: gives the template and the longest sequence.
        processor: the model's LLaVA processor, see `build_processor`.
        overlong: ``error`` or ``drop_turns``, see `DataConfig`.

    Raises:
        ValueError: an unknown template, or a tokenizer that gives no offsets or has no ``<image>``.
    """
    tokenizer = processor.tokenizer
    return Encoder(
        tokenizer,
        template_for(model.conv_mode, tokenizer),
        count_image_tokens(processor),
        model.model_max_length,
        overlong,
    )
