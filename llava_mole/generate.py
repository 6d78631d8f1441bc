"""The one way a model answers, for chat, evaluation and serving: `answer` and `answers`.

Prompts come from the processor's own chat template, batches are padded on the left, and an answer
ends with the tokenizer's end-of-sequence (a newline for the ``plain`` template).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import BatchFeature, GenerationConfig, LlavaProcessor
from transformers.generation.streamers import BaseStreamer

from llava_mole.model.templates import IMAGE_TOKEN, conversation

Turns = Sequence[Mapping[str, str]]


def answer(
    model: nn.Module,
    processor: LlavaProcessor,
    image: Image.Image | None,
    turns: Turns,
    *,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    repetition_penalty: float = 1.0,
    streamer: BaseStreamer | None = None,
) -> str:
    """The assistant's next turn.

    Args:
        model: a LLaVA, with or without adapter.
        processor: its processor.
        image: what the conversation is about; it belongs to the first user's turn, whose
            ``<image>`` says where, or in front of it where there is none.
        turns: ``{"role": "user" | "assistant", "content": str}``, the last one a user's.
        temperature: 0 is greedy, which gives the same answer each time.
        max_new_tokens: the longest answer; less where the context ends sooner.
        repetition_penalty: transformers'; 1 is none.
        streamer: gets the tokens while they come, e.g. transformers' ``TextIteratorStreamer``.

    Raises:
        ValueError: turns out of order, ``<image>`` without image or the reverse, a conversation
            longer than the context.
    """
    return answers(
        model,
        processor,
        [(image, turns)],
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        repetition_penalty=repetition_penalty,
        streamer=streamer,
    )[0]


def answers(
    model: nn.Module,
    processor: LlavaProcessor,
    batch: Sequence[tuple[Image.Image | None, Turns]],
    *,
    temperature: float = 0.0,
    max_new_tokens: int = 512,
    repetition_penalty: float = 1.0,
    streamer: BaseStreamer | None = None,
) -> list[str]:
    """`answer` for several conversations at once; greedy answers equal those given one by one."""
    inputs = encode_prompts(processor, batch).to(model.device)
    length = inputs["input_ids"].shape[1]
    limit = _context(model, processor)
    if length >= limit:
        raise ValueError(
            f"the conversation takes {length} tokens and the context is {limit}; start a new one "
            "or shorten it."
        )
    tokenizer = processor.tokenizer
    # All spelled out, or the language model's generation_config.json would decide.
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 50}
    settings = GenerationConfig(
        max_new_tokens=min(max_new_tokens, limit - length),
        repetition_penalty=repetition_penalty,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **sampling,
    )
    stop = {}
    plain = conversation("plain")
    # Told by its tag: the rest of a template depends on the tokenizer that it was made for.
    if plain.tag in processor.chat_template:
        stop = {"stop_strings": [plain.stop], "tokenizer": tokenizer}
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            ids = model.generate(**inputs, generation_config=settings, streamer=streamer, **stop)
    finally:
        model.train(training)
    texts = tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True)
    return [text.strip() for text in texts]


def encode_prompts(
    processor: LlavaProcessor, batch: Sequence[tuple[Image.Image | None, Turns]]
) -> BatchFeature:
    """Prompts as ``input_ids`` and ``attention_mask`` (B, L), left-padded, and ``pixel_values``.

    Raises:
        ValueError: see `answer`.
    """
    texts = [
        processor.apply_chat_template(_with_image(image, turns), add_generation_prompt=True)
        for image, turns in batch
    ]
    if "" in texts:
        raise ValueError("the prompt is empty: the plain template reads images only; give one.")
    images = [image for image, _ in batch if image is not None]
    return processor(
        text=texts,
        images=images or None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )


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


def _context(model: nn.Module, processor: LlavaProcessor) -> int:
    """Longest sequence in tokens that both the decoder and the run's settings allow."""
    text = model.config.get_text_config()
    positions = (
        getattr(text, "max_position_embeddings", None) or processor.tokenizer.model_max_length
    )
    return min(positions, processor.tokenizer.model_max_length)
