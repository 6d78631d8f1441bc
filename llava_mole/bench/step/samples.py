"""What is trained on: the first global batches of a run, read and encoded once, in memory."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from llava_mole.bench.figures import say
from llava_mole.config import load
from llava_mole.data.build import open_data
from llava_mole.data.collate import Sample
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.sampler import EpochSampler
from llava_mole.model.build import build_model
from llava_mole.model.processor import build_processor
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for
from llava_mole.train.features import vision_features

QUICKSTART = "bash scripts/quickstart.sh"


@dataclass(frozen=True)
class Job:
    """What every arm starts from.

    Attributes:
        config: the run.
        model: its base model on ``device``; arms share its weights.
        processor: its LLaVA processor.
        samples: whole global batches, in the mixture's order.
        datasets: names by ``dataset_id``.
        domains: each data set's domain, numbered from 0.
        device: ``cpu`` or ``cuda``.
        source: what the samples are, in words.
    """

    config: RunConfig
    model: nn.Module
    processor: Any
    samples: list[Sample]
    datasets: list[str]
    domains: list[int]
    device: str
    source: str

    @property
    def global_batch(self) -> int:
        """Samples of an optimizer step."""
        return self.config.train.samples_per_step(1, self.config.data.packing)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, (n,) int64."""
        return np.array([len(sample["encoded"].input_ids) for sample in self.samples])

    @property
    def num_images(self) -> np.ndarray:
        """Images of each sample, (n,) int64."""
        return np.array([len(sample.get("pixel_values", ())) for sample in self.samples])

    @property
    def targets(self) -> np.ndarray:
        """Supervised positions of each sample, (n,) int64."""
        return np.array([sample["encoded"].num_supervised for sample in self.samples])


def job_of(path: str, steps: int, device: str, pixels: bool, rank: int | None = None) -> Job:
    """The first ``steps`` global batches of the run in a config file.

    Args:
        path: a config of stage ``finetune`` with an adapter.
        steps: global batches.
        device: where the model goes.
        pixels: give the vision tower pixels, though the run has a cache of its features.
        rank: of the adapters, in place of the config's; alpha keeps its ratio to it.

    Raises:
        ValueError: another stage, or something that the run needs is not there; says what makes it.
    """
    config = load(RunConfig, path)
    if config.stage != "finetune" or config.adapter.type == "none":
        raise ValueError(
            f"--config {path}: stage {config.stage}, adapter {config.adapter.type}; give a config "
            "of stage finetune with an adapter, e.g. configs/quickstart_finetune.yaml"
        )
    config = with_rank(config, rank)
    config.data = config.data.drawn()
    _refuse_without_data(path, config)
    if config.model.projector and not Path(config.model.projector).exists():
        say(f"{config.model.projector} is not there: a projector of random weights in its place")
        config.model.projector = None
    if pixels:
        config.data.feature_cache = None
    try:
        model = build_model(config.model).to(device)
    except ValueError as error:
        raise ValueError(f"--config {path}: {error}; {_remedy(path)}") from error
    processor = build_processor(config.model)
    encoder = encoder_for(config.model, processor, config.data.overlong)
    data = open_data(config.data, encoder, config.seed)
    pixel_reader = ProcessorPixels(processor.image_processor)
    features = vision_features(config, model, data, pixel_reader, torch.device(device))
    batch = config.train.samples_per_step(1, config.data.packing)
    dataset = data.samples(encoder, pixel_reader, features)
    sampler = EpochSampler(data.mixture, batch)
    pairs = [pair for pair, _ in zip(sampler, range(steps * batch), strict=False)]
    if len(pairs) < steps * batch:
        raise ValueError(
            f"--steps {steps}: an epoch of {path} has {len(sampler) // batch} global batches of "
            f"{batch}; take fewer steps"
        )
    names = list(dict.fromkeys(records.domain for records in data.sets))
    images = "features of the vision tower" if features is not None else "pixels"
    return Job(
        config,
        model,
        processor,
        [dataset[pair] for pair in pairs],
        data.names,
        [names.index(records.domain) for records in data.sets],
        device,
        f"the first samples of {path}, images as {images}",
    )


def with_rank(config: RunConfig, rank: int | None) -> RunConfig:
    """``config`` with adapters of another rank, alpha in the same ratio; None leaves it."""
    if rank is None:
        return config
    adapter = config.adapter
    alpha = round(adapter.lora_alpha / adapter.r * rank)
    return dataclasses.replace(
        config, adapter=dataclasses.replace(adapter, r=rank, lora_alpha=alpha)
    )


def _refuse_without_data(path: str, config: RunConfig) -> None:
    for domain in config.data.domains.values():
        for dataset in domain.datasets:
            if not Path(dataset.path).exists():
                raise ValueError(
                    f"--config {path}: data set {dataset.name!r} is not at {dataset.path}; "
                    f"{_remedy(path)}"
                )


def _remedy(path: str) -> str:
    made = f"'{QUICKSTART}' makes" if "quickstart" in Path(path).name else "make"
    where = "" if "quickstart" in Path(path).name else " (playground/data/README.md)"
    return f"{made} its data and models{where}, or measure made-up samples with --synthetic"
