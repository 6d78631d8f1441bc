"""From a run config to measured conflicts: data, model, batches, gradients, cosines."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from llava_mole.analysis.conflicts.breakdown import Conflicts, conflicts
from llava_mole.analysis.conflicts.cosine import LEAST_BATCHES
from llava_mole.analysis.conflicts.draw import BY, DrawnBatches, draw_batches
from llava_mole.analysis.conflicts.gradients import (
    Grams,
    domain_gradients,
    free_memory,
    gradient_bytes,
    refuse_too_many,
)
from llava_mole.analysis.conflicts.weights import (
    autocast_of,
    model_at,
    refuse_warmup_alone,
    with_model_of,
)
from llava_mole.data.build import open_data
from llava_mole.data.collate import PaddedCollator
from llava_mole.data.config import DataConfig, EvalConfig
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.model.processor import build_processor
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for
from llava_mole.train.features import vision_features

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What is measured, and where.

    Attributes:
        batches: N, batches of each domain.
        batch_size: samples of a batch.
        seed: of the draw; None takes the config's.
        by: what is compared: ``domain`` or ``dataset``.
        only: names of the domains (or data sets) to compare; empty for all.
        adapter: ``lora`` measures on plain LoRA of the config's rank even where the config says
            MoLE; ``config`` on what it says.
        steps_before: optimizer steps that are trained first, on the config's mixture.
        model_path: run whose trained weights are measured; None for those that training starts at.
        device: where the gradients are computed.
    """

    batches: int = 16
    batch_size: int = 8
    seed: int | None = None
    by: Literal["domain", "dataset"] = "domain"
    only: tuple[str, ...] = ()
    adapter: Literal["lora", "config"] = "lora"
    steps_before: int = 0
    model_path: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Raises ValueError for values that no measurement can have."""
        if self.batches < LEAST_BATCHES:
            raise ValueError(
                f"--batches is {self.batches}; it must be >= {LEAST_BATCHES}, as the intervals "
                "come from the differences between batches"
            )
        if self.batch_size < 1:
            raise ValueError(f"--batch-size is {self.batch_size}; it must be >= 1")
        if self.steps_before < 0:
            raise ValueError(f"--steps-before is {self.steps_before}; it must be >= 0")
        if self.by not in BY:
            raise ValueError(f"--by is {self.by!r}; choose one of {', '.join(BY)}")
        if self.steps_before and self.model_path:
            raise ValueError(
                "--steps-before trains a new adapter and --model-path names a trained one: give one"
            )


@dataclass(frozen=True)
class Measurement:
    """Conflicts, and what they rest on.

    Attributes:
        conflicts: the cosines.
        grams: what they were computed from.
        about: what was measured, as plain values for JSON: ``adapter``, ``weights`` (where in
            training), ``batches``, ``batch_size``, ``seed``, ``by``, ``numbers`` (a gradient's
            length), …
        notes: what a reader must know before the figures.
    """

    conflicts: Conflicts
    grams: Grams
    about: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names, grams = self.grams.names, self.grams
        tokens = grams.targets.sum(axis=1)
        losses = (grams.losses * grams.targets).sum(axis=1) / tokens
        return {
            **self.about,
            "notes": list(self.notes),
            "loss": dict(zip(names, losses.tolist(), strict=True)),
            "target_tokens": dict(zip(names, tokens.tolist(), strict=True)),
            **self.conflicts.to_dict(),
        }


def measure(config: RunConfig, settings: Settings, progress: bool = False) -> Measurement:
    """Measures the conflicts of ``config``'s mixture.

    Args:
        config: a finetuning run; with ``settings.model_path`` only its data is used.
        settings: what is measured.
        progress: whether to show progress bars.

    Raises:
        ValueError: a stage or adapter without LoRA, names that are not there, too little data or
            memory, or whatever keeps the config's run from starting.
    """
    notes: list[str] = []
    if settings.model_path is None:
        config = _measurable(config, settings, notes)
    else:
        config = with_model_of(config, settings.model_path)
    seed = config.seed if settings.seed is None else settings.seed
    compared = _only(config.data.drawn(), settings)
    processor = build_processor(config.model)
    encoder = encoder_for(config.model, processor, config.data.overlong)
    data = open_data(compared, encoder, seed, progress=progress)
    drawn = draw_batches(data, settings.batches, settings.batch_size, seed, settings.by)
    model, weights = model_at(config, settings.device, settings.steps_before, settings.model_path)
    size = gradient_bytes(model)
    refuse_too_many(size, len(drawn), settings.batches, free_memory())
    held = size * len(drawn) * settings.batches
    logger.info(
        "%d x %d gradients of %s numbers are held: %.2f GiB of memory",
        len(drawn),
        settings.batches,
        f"{size // 4:,}",
        held / 2**30,
    )
    pixels = ProcessorPixels(processor.image_processor)
    # As in training: from the config's cache, where it names one.
    features = vision_features(config, model, data, pixels, torch.device(settings.device))
    samples = data.samples(encoder, pixels, features)
    grams = domain_gradients(
        model,
        {name: DrawnBatches(samples, indices) for name, indices in drawn.items()},
        PaddedCollator(processor.tokenizer.pad_token_id),
        micro_batch_size=config.train.per_device_train_batch_size,
        autocast=autocast_of(config),
        progress=progress,
    )
    notes += _about_zero(grams)
    about = {
        "adapter": _adapter_of(model),
        "weights": weights,
        "by": settings.by,
        "names": list(drawn),
        "batches": settings.batches,
        "batch_size": settings.batch_size,
        "seed": seed,
        "numbers": int(grams.sizes.sum()),
        "gradient_bytes_held": held,
    }
    return Measurement(conflicts(grams), grams, about, tuple(notes))


def _measurable(config: RunConfig, settings: Settings, notes: list[str]) -> RunConfig:
    """``config`` with the adapter that is measured."""
    if config.stage != "finetune":
        raise ValueError(
            f"stage is {config.stage!r}, which trains the projector alone; give the config of a "
            "finetuning, such as configs/finetune_lora.yaml"
        )
    refuse_warmup_alone(config, settings.steps_before)
    adapter = config.adapter
    if adapter.type == "none":
        raise ValueError(
            "adapter.type is none, so there is no LoRA to measure; add adapter.type=lora"
        )
    if adapter.type == "mole" and settings.adapter == "lora":
        notes.append(
            f"Plain LoRA of rank {adapter.r} in place of the config's MoLE (K = "
            f"{adapter.num_experts}), since the question is what one LoRA would have to bear; "
            "--adapter config measures the MoLE."
        )
        if adapter.rank_pattern or adapter.alpha_pattern:
            notes.append("adapter.rank_pattern and alpha_pattern name FFNs and are left out.")
        # A pattern of FFNs fits no linear, and a LoRA has no router, to teach or to read images.
        adapter = dataclasses.replace(
            adapter, type="lora", rank_pattern={}, alpha_pattern={}, route_by_image=False
        )
        train = dataclasses.replace(config.train, router_domain_coef=0.0)
        return dataclasses.replace(config, adapter=adapter, train=train)
    return config


def _only(data: DataConfig, settings: Settings) -> DataConfig:
    """The section with what is compared; held-out sets are not opened."""
    data = dataclasses.replace(data, eval=EvalConfig())
    if not settings.only:
        return data
    sets = {
        dataset.name: name for name, domain in data.domains.items() for dataset in domain.datasets
    }
    known = list(data.domains) if settings.by == "domain" else list(sets)
    if unknown := [name for name in settings.only if name not in known]:
        raise ValueError(
            f"--only {unknown[0]}: data.domains has no {settings.by} of that name with a weight "
            f"above 0; there are {', '.join(known)}"
        )
    if len(set(settings.only)) < 2:
        raise ValueError(
            f"--only names one {settings.by}, {settings.only[0]!r}, and a conflict takes two; "
            f"there are {', '.join(known)}"
        )
    domains = {}
    for name, domain in data.domains.items():
        kept = [
            dataset
            for dataset in domain.datasets
            if (name if settings.by == "domain" else dataset.name) in settings.only
        ]
        if kept:
            domains[name] = dataclasses.replace(domain, datasets=kept)
    return dataclasses.replace(data, domains=domains)


def _adapter_of(model: nn.Module) -> dict[str, Any]:
    """Type, rank and number of experts, as PEFT's config of the adapter has them."""
    found = model.peft_config["default"]
    kind = found.peft_type.value.lower()
    experts = {"num_experts": found.num_experts} if kind == "mole" else {}
    return {"type": kind, "r": found.r, **experts}


def _about_zero(grams: Grams) -> list[str]:
    factors = {piece.factor for piece in grams.zero if piece.is_adapter}
    moving = {piece.factor for piece in grams.pieces if piece.is_adapter}
    if "A" in factors and "A" not in moving:
        return [
            "B is zero here, so the gradient of every A is exactly 0 and the cosines are those of "
            "B alone; --steps-before N or --model-path RUN measure where both move."
        ]
    if grams.zero:
        return [f"{len(grams.zero)} weights have a gradient of exactly 0 and are left out."]
    return []
