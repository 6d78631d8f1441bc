"""Records as the batches that are routed, with what each token is: image, question or answer.

A record's own answer is part of its sequence, as in training, so that there are answer tokens whose
routing can be counted. Causal attention keeps the other tokens' routing what it is without it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from llava_mole.data.collate import PaddedCollator, Sample, model_inputs
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.images.read import load_image
from llava_mole.data.records import Record
from llava_mole.data.tokens.encode import (
    IGNORE_INDEX,
    Encoded,
    Encoder,
    count_image_tokens,
    image_token_id,
)
from llava_mole.model.templates import template_for

KINDS = ("image", "question", "answer")
PADDING = -1
_TAG = re.compile(r"\{#- conv_mode: (\w+) -#\}")


def encoder_of(processor: Any) -> Encoder:
    """The encoder of a run, from the processor that is saved with it.

    Raises:
        ValueError: a chat template that none of ours wrote, which doesn't tell answers apart.
    """
    tag = _TAG.match(processor.chat_template or "")
    if tag is None:
        raise ValueError(
            "the run's chat_template.jinja doesn't begin with its conv_mode, so it isn't known "
            "which tokens are answers; train or save the run with this version of llava-mole"
        )
    tokenizer = processor.tokenizer
    return Encoder(
        tokenizer,
        template_for(tag[1], tokenizer),
        count_image_tokens(processor),
        int(min(tokenizer.model_max_length, 2**31)),
    )


def kinds_of(encoded: Encoded, image_id: int) -> torch.Tensor:
    """(L,) int64, each token's place in `KINDS`.

    Answer is what the model learns to write, the end of the turn included; question is all other
    text, the template's own words and the system prompt included.
    """
    kinds = torch.where(encoded.labels != IGNORE_INDEX, 2, 1)
    return torch.where(encoded.input_ids == image_id, 0, kinds)


def batches(
    records: Sequence[Record],
    root: str | os.PathLike[str],
    encoder: Encoder,
    processor: Any,
    batch_size: int,
) -> Iterator[tuple[dict[str, Any], torch.Tensor]]:
    """What the model's forward takes, and what each of its tokens is.

    Args:
        records: in the order in which they are routed.
        root: folder of their images.
        encoder: of the run.
        processor: its LLaVA processor.
        batch_size: records a batch.

    Yields:
        Keyword arguments on the CPU, padded on the right; and (B, L) int64 places in `KINDS`, with
        `PADDING` where there is no token.

    Raises:
        BadRecord: a record that does not fit the model.
        ImageError: an image that can't be read.
    """
    pixels = ProcessorPixels(processor.image_processor)
    collate = PaddedCollator(encoder.tokenizer.pad_token_id)
    image_id = image_token_id(encoder.tokenizer)
    for start in range(0, len(records), batch_size):
        samples: list[Sample] = []
        for record in records[start : start + batch_size]:
            sample: Sample = {"encoded": encoder(record), "dataset_id": 0}
            if images := sample["encoded"].images:
                sample["pixel_values"] = torch.stack([pixels(load_image(i, root)) for i in images])
            samples.append(sample)
        # Routing is wanted, not words: one position's logits are the fewest.
        inputs = model_inputs(collate(samples)) | {"logits_to_keep": 1, "use_cache": False}
        kinds = torch.full(inputs["input_ids"].shape, PADDING)
        for row, sample in zip(kinds, samples, strict=True):
            own = kinds_of(sample["encoded"], image_id)
            row[: len(own)] = own
        yield inputs, kinds
