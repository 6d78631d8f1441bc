"""Made-up samples with the lengths of an instruction mixture, for a model of random weights.

A sample is zero to six images and a text whose length is log-normal, as in the paper's mixture
(`llava_mole.bench.layouts`), in proportion to the images: 576 tokens an image there, fewer here.
"""

import tempfile
from collections.abc import Sequence

import numpy as np
import torch

from llava_mole.bench.layouts import IMAGE_TOKENS, made_up_mixture
from llava_mole.bench.small import small_llava, small_tokenizer
from llava_mole.bench.step.samples import Job, with_rank
from llava_mole.data.collate import Sample
from llava_mole.data.config import DataConfig
from llava_mole.data.tokens.encode import IGNORE_INDEX, Encoded
from llava_mole.model.build import build_model
from llava_mole.model.config import ModelConfig
from llava_mole.model.processor import build_processor
from llava_mole.train.config import AdapterConfig, RunConfig, TrainConfig

# The longest sample of the paper's over the tokens of an image: what is longer is cut.
_LONGEST = 4096 / IMAGE_TOKENS
# Ids of special tokens lie below.
_FIRST_ID = 3


def small_job(
    size: Sequence[int], steps: int, device: str, rank: int | None, batch: int = 8
) -> Job:
    """A small LLaVA (see `small_llava`) and global batches of ``batch`` samples.

    Args:
        size: width, FFN width and layers of its decoder.
        steps: global batches.
        device: where the model goes.
        rank: of the adapters; None means 16.
        batch: samples of a global batch, and of a padded micro-batch.
    """
    model, processor = small_llava(size)
    image_tokens = model.config.image_seq_length
    config = RunConfig(
        # Never built from this: the model is there. Its length bounds a packed row.
        model=ModelConfig(
            language_config={"model_type": "llama"},
            model_max_length=int(_LONGEST * image_tokens),
        ),
        data=DataConfig(packing=True),
        stage="finetune",
        output_dir="unused",
        adapter=AdapterConfig(type="mole", r=16, lora_alpha=32, lora_dropout=0.0),
        train=TrainConfig(
            learning_rate=2e-4, global_batch_size=batch, per_device_train_batch_size=batch
        ),
    )
    return _job(model.to(device), processor, with_rank(config, rank), steps, device)


def random_job(config: RunConfig, steps: int, device: str, rank: int | None) -> Job:
    """A run's model with random weights, in its dtype, and its global batches made up.

    Args:
        config: its ``model`` section needs an architecture written out (``language_config``); no
            weights and no tokenizer are read.
        steps: global batches.
        device: where the model is made.
        rank: of the adapters; None means the config's.
    """
    if config.model.language_config is None:
        raise ValueError("--model: a model of random weights needs model.language_config")
    section = config.model
    section.language_model = section.vision_pretrained = section.projector = None
    with tempfile.TemporaryDirectory(prefix="llava-mole-tokenizer-") as folder:
        small_tokenizer().save_pretrained(folder)
        section.tokenizer = folder
        # Made where it is used: on a CPU first, 7 billion random numbers take minutes.
        with torch.device(device):
            model = build_model(section, device=device)
        processor = build_processor(section)
    return _job(model, processor, with_rank(config, rank), steps, device)


def _job(model, processor, config: RunConfig, steps: int, device: str) -> Job:
    count = steps * config.train.samples_per_step(1, config.data.packing)
    samples = made_up_samples(model.config, count, config.model.model_max_length)
    return Job(config, model, processor, samples, ["made up"], [0], device, "made-up samples")


def made_up_samples(llava_config, count: int, max_length: int, seed: int = 0) -> list[Sample]:
    """Samples of random ids and pixels, the same for the same seed.

    Args:
        llava_config: the model's ``LlavaConfig``.
        count: how many.
        max_length: longest sample in tokens.
        seed: of all of it.
    """
    rng = np.random.default_rng(seed)
    tokens = llava_config.image_seq_length
    lengths, images = made_up_mixture(count, seed)
    text = np.ceil((lengths - IMAGE_TOKENS * images) * tokens / IMAGE_TOKENS).astype(int)
    side = llava_config.vision_config.image_size
    vocabulary = min(llava_config.text_config.vocab_size, llava_config.image_token_id)
    samples = []
    for words, number in zip(text.tolist(), images.tolist(), strict=True):
        number = min(number, (max_length - 4) // tokens)
        words = min(max(words, 4), max_length - number * tokens)
        ids = rng.integers(_FIRST_ID, vocabulary, words)
        placed = np.full(number * tokens, llava_config.image_token_id)
        ids = torch.from_numpy(np.concatenate([ids[:1], placed, ids[1:]]))
        labels = torch.full_like(ids, IGNORE_INDEX)
        answer = words // 2
        labels[-answer:] = ids[-answer:]
        sample = Sample(encoded=Encoded(ids, labels, num_supervised=answer), dataset_id=0)
        if number:
            pixels = rng.standard_normal((number, 3, side, side), dtype=np.float32)
            sample["pixel_values"] = torch.from_numpy(pixels)
        samples.append(sample)
    return samples
