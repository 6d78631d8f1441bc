"""Conversations to a left-padded batch of tokens, each distinct image once."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from transformers import BatchFeature, LlavaProcessor

from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.tokens.encode import count_image_tokens
from llava_mole.model.templates import IMAGE_TOKEN

Turns = Sequence[Mapping[str, str]]


class Prompts(NamedTuple):
    """A batch of B prompts about U distinct images.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask`` (B, L) int64, left-padded; ``pixel_values``
            (U, 3, H, W) where there are images.
        image_of: (B,) int64, row of ``pixel_values`` of each prompt; -1 for text alone.
    """

    inputs: BatchFeature
    image_of: torch.Tensor

    def repeated(self) -> BatchFeature:
        """The inputs with ``pixel_values`` once per prompt, as the model takes them."""
        inputs = BatchFeature(dict(self.inputs))
        if "pixel_values" in inputs:
            rows = self.image_of[self.image_of >= 0].to(inputs["pixel_values"].device)
            inputs["pixel_values"] = inputs["pixel_values"][rows]
        return inputs


def encode_prompts(
    processor: LlavaProcessor, batch: Sequence[tuple[Image.Image | None, Turns]]
) -> BatchFeature:
    """Prompts as ``input_ids`` and ``attention_mask`` (B, L), left-padded, and ``pixel_values``.

    Raises:
        ValueError: see `llava_mole.generate.answer`.
    """
    return encode(processor, batch).repeated()


def encode(processor: LlavaProcessor, batch: Sequence[tuple[Image.Image | None, Turns]]) -> Prompts:
    """Prompts with each image preprocessed once; the same image is the same object.

    Raises:
        ValueError: see `llava_mole.generate.answer`.
    """
    texts = [
        processor.apply_chat_template(_with_image(image, turns), add_generation_prompt=True)
        for image, turns in batch
    ]
    if "" in texts:
        raise ValueError("the prompt is empty: the plain template reads images only; give one.")
    distinct = {id(image): image for image, _ in batch if image is not None}
    rows = {key: row for row, key in enumerate(distinct)}
    pixels, image_tokens = _vision(processor) if distinct else (None, 1)
    inputs = processor.tokenizer(
        [text.replace(IMAGE_TOKEN, IMAGE_TOKEN * image_tokens) for text in texts],
        padding=True,
        padding_side="left",
        return_tensors="pt",
        return_token_type_ids=False,
    )
    inputs = BatchFeature(dict(inputs))
    if distinct:
        inputs["pixel_values"] = torch.stack([pixels(image) for image in distinct.values()])
    return Prompts(inputs, torch.tensor([rows.get(id(image), -1) for image, _ in batch]))


@functools.lru_cache(maxsize=2)
def _vision(processor: LlavaProcessor) -> tuple[ProcessorPixels, int]:
    """The processor's pixels, and how many tokens an image takes."""
    return ProcessorPixels(processor.image_processor), count_image_tokens(processor)


def _with_image(image: Image.Image | None, turns: Turns) -> list[dict[str, str]]:
    """The turns, checked, with the ``<image>`` of ``image`` in the first user's turn."""
    turns = [dict(turn) for turn in turns]
    spoken = [turn for turn in turns if turn["role"] != "system"]
    roles = [turn["role"] for turn in spoken]
    expected = ["assistant" if i % 2 else "user" for i in range(len(roles))]
    if roles != expected or not roles or roles[-1] != "user":
        raise ValueError(
            f"roles are {roles}; user and assistant must alternate, the user first and last."
        )
    count = sum(t["content"].count(IMAGE_TOKEN) for t in spoken if t["role"] == "user")
    if image is not None and not count:
        spoken[0]["content"] = f"{IMAGE_TOKEN}\n{spoken[0]['content']}"
    elif count != (image is not None):
        raise ValueError(
            f"the turns have {count} {IMAGE_TOKEN} for {int(image is not None)} image(s); remove "
            f"or add {IMAGE_TOKEN}, or give the image."
        )
    return turns
