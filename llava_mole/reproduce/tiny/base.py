"""The tiny scale's language model, trained from scratch in minutes and frozen ever after.

It stands for Vicuna: a decoder that reads the questions and sees, through a projector, what they
ask for, in all three domains, and answers in plain words. The projector that it is trained with is
thrown away; stage 1 (``llava-mole train``) gives it another, as in LLaVA.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from llava_mole.data.build import open_data
from llava_mole.data.collate import PaddedCollator, model_inputs
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.sampler import EpochSampler
from llava_mole.model.build import build_model
from llava_mole.model.processor import build_processor
from llava_mole.reproduce.tiny.tokenizer import build_tokenizer
from llava_mole.train.batches import GlobalBatches
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for
from llava_mole.train.features import vision_features

ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
STEPS, BATCH, RATE, WARMUP = 3000, 32, 2e-3, 20


def build_base(stage_1: RunConfig, folder: Path, steps: int = STEPS) -> None:
    """Trains the language model on the data of stage 1 and writes it with its tokenizer.

    Args:
        stage_1: run config of stage 1, whose ``model.language_model`` this will be.
        folder: where it goes; left as it is where it is complete.
        steps: optimizer steps of 32 samples.
    """
    if (folder / "config.json").is_file():
        return
    partial = folder.with_name(folder.name + ".partial")
    build_tokenizer(partial)
    section = dataclasses.replace(
        stage_1.model,
        language_model=None,
        language_config=ARCHITECTURE | {"vocab_size": 64},
        tokenizer=str(partial),
    )
    config = dataclasses.replace(stage_1, model=section)
    model, processor = build_model(section), build_processor(section)
    _train(model, processor, config, steps)
    language_model = _as_decoder(model)
    language_model.save_pretrained(partial)
    partial.rename(folder)


def _train(model, processor, config: RunConfig, steps: int) -> None:
    encoder = encoder_for(config.model, processor)
    data = open_data(config.data, encoder, config.seed)
    pixels = ProcessorPixels(processor.image_processor)
    features = vision_features(config, model, data, pixels, torch.device("cpu"))
    samples = data.samples(encoder, pixels, features)
    collate = PaddedCollator(processor.tokenizer.pad_token_id)
    model.model.vision_tower.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    batches = _batches(EpochSampler(data.mixture, BATCH))
    model.train()
    for _ in (bar := tqdm(range(steps), desc="base model")):
        batch = collate([samples[index] for index in next(batches)])
        logits = model(**model_inputs(batch), use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def _batches(sampler: EpochSampler) -> Iterator[list[tuple[int, int]]]:
    """Global batches of one epoch after the other."""
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        yield from GlobalBatches(sampler)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARMUP) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def _as_decoder(model):
    """The LLaVA's language model and head as a decoder of its own, which stage 1 loads."""
    decoder = AutoModelForCausalLM.from_config(model.config.text_config)
    decoder.base_model.load_state_dict(model.model.language_model.state_dict())
    decoder.lm_head.load_state_dict(model.lm_head.state_dict())
    return decoder
