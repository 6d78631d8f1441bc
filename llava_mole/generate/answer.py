"""`answer` and `answers`: greedy or sampled text from prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import GenerationConfig, LlavaProcessor
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor
from transformers.generation.streamers import BaseStreamer

from llava_mole.generate.prefill import shared_prefill
from llava_mole.generate.prompts import Prompts, Turns, encode
from llava_mole.model.templates import conversation


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
        repetition_penalty: transformers', on what the answer has said so far; 1 is none. The
            prompt is not penalised, as in LLaVA and the paper's code, which generate from
            embeddings: there a question's own words, ``yes`` or ``no``, stay as likely as they are.
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
    """`answer` for several conversations at once; greedy answers equal those given one by one.

    Conversations that are given the same image (the same object) share its prefill.
    """
    encoded = encode(processor, batch)
    encoded = Prompts(encoded.inputs.to(model.device), encoded.image_of)
    longest = int(encoded.inputs["attention_mask"].sum(dim=1).max())
    limit = _context(model, processor)
    if longest >= limit:
        raise ValueError(
            f"the conversation takes {longest} tokens and the context is {limit}; start a new one "
            "or shorten it."
        )
    tokenizer = processor.tokenizer
    # All spelled out, or the language model's generation_config.json would decide.
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 50}
    settings = GenerationConfig(
        max_new_tokens=min(max_new_tokens, limit - longest),
        repetition_penalty=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        **sampling,
    )
    options: dict[str, Any] = {"generation_config": settings, "streamer": streamer}
    plain = conversation("plain")
    # Told by its tag: the rest of a template depends on the tokenizer that it was made for.
    if plain.tag in processor.chat_template:
        options |= {"stop_strings": [plain.stop], "tokenizer": tokenizer}
    training = model.training
    model.eval()
    try:
        inputs = shared_prefill(model, encoded, processor.image_token_id)
        length = inputs["input_ids"].shape[1]
        if repetition_penalty != 1.0:
            penalty = RepetitionPenaltyLogitsProcessor(repetition_penalty, length)
            options["logits_processor"] = [penalty]
        with torch.inference_mode():
            ids = model.generate(**inputs, **options)
    finally:
        model.train(training)
    texts = tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True)
    return [text.strip() for text in texts]


def _context(model: nn.Module, processor: LlavaProcessor) -> int:
    """Longest sequence in tokens that both the decoder and the run's settings allow."""
    text = model.config.get_text_config()
    positions = (
        getattr(text, "max_position_embeddings", None) or processor.tokenizer.model_max_length
    )
    return min(positions, processor.tokenizer.model_max_length)
