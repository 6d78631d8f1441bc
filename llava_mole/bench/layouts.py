"""How even a layout makes the ranks, and what that means for the paper's 16 hours on 64 A100s.

ARITHMETIC, nothing here is timed: lengths are dealt by the product's own `Layout`, floating-point
operations are counted on the model's shapes (`llava_mole.bench.step.operations`), and the hours
follow from a share of the GPU's peak (model FLOP utilisation, MFU) that is ASSUMED.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llava_mole.bench.figures import Figure
from llava_mole.bench.step.operations import Operations, operations_of
from llava_mole.data.build import open_data
from llava_mole.data.layout import Layout, efficiency
from llava_mole.model.build import build_model
from llava_mole.model.processor import build_processor
from llava_mole.train.adapter import attach
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for

IMAGE_TOKENS = 576
LONGEST = 4096
GLOBAL_BATCH = 64
# Enough global batches that the mean of the slowest rank is known to a percent.
BATCHES = 500
MFU = (0.45, 0.55)
_NUM_IMAGES = (0, 1, 2, 3, 4, 5, 6)
_SHARES = (0.02, 0.82, 0.032, 0.032, 0.032, 0.032, 0.032)
_MEDIAN_TEXT, _DEVIATION, _FRAME = 180, 0.8, 40


@dataclass(frozen=True)
class Lengths:
    """The samples of whole global batches, in order.

    Attributes:
        tokens: of each sample, image tokens included, (n,) int64.
        num_images: of each sample, (n,) int64.
        source: what they are, in words.
    """

    tokens: np.ndarray
    num_images: np.ndarray
    source: str

    @property
    def targets(self) -> np.ndarray:
        """Supervised positions, assumed: half of the text, (n,) float64."""
        return np.maximum(self.tokens - IMAGE_TOKENS * self.num_images, 0) / 2


def made_up_mixture(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and image counts like those of the paper's mixture: mean 1,119 tokens, up to 4,096.

    Most samples have one image; some have several (M3IT's stories and frames of videos); texts are
    log-normal, from short answers about a document to ShareGPT4V's long captions. Made up: the
    published sets were not measured for it.

    Args:
        count: samples.
        seed: of all draws.

    Returns:
        Tokens (n,) int64, image tokens included, and images (n,) int64.
    """
    rng = np.random.default_rng(seed)
    images = rng.choice(_NUM_IMAGES, count, p=_SHARES)
    text = rng.lognormal(np.log(_MEDIAN_TEXT), _DEVIATION, count).astype(np.int64) + _FRAME
    return np.minimum(text + IMAGE_TOKENS * images, LONGEST), images


def made_up_lengths(batches: int = BATCHES) -> Lengths:
    """Global batches of `made_up_mixture`."""
    tokens, images = made_up_mixture(batches * GLOBAL_BATCH)
    return Lengths(tokens, images, f"made-up mixture, mean {tokens.mean():,.0f} tokens")


def lengths_of(config: RunConfig, batches: int = BATCHES) -> Lengths:
    """The first global batches of a run's mixture, or a whole epoch if it has fewer.

    Args:
        config: its data must be here; lengths are counted unless it was prepared with them.
        batches: global batches of `GLOBAL_BATCH`.

    Raises:
        ValueError: data that is missing, or less than a global batch of it.
    """
    encoder = encoder_for(config.model, build_processor(config.model), config.data.overlong)
    data = open_data(config.data.drawn(), encoder, config.seed)
    order = data.mixture.epoch(0)
    order = order[: min(len(order) // GLOBAL_BATCH, batches) * GLOBAL_BATCH]
    tokens, images = data.sizes(order)
    source = f"{len(order):,} samples of the run's mixture, mean {tokens.mean():,.0f} tokens"
    return Lengths(tokens, images, source)


def layouts(row: int = LONGEST) -> dict[str, Layout]:
    """The paper's layout and ours, global batch 64.

    Args:
        row: tokens of a packed row at most.
    """
    return {
        "64 ranks x 1 sample": Layout(64, 1),
        **{f"{ranks} ranks, packed": Layout(ranks, packing_length=row) for ranks in (16, 8)},
    }


def count(config: RunConfig) -> Operations:
    """Operations of a run's model with its adapter, from shapes alone."""
    model = attach(build_model(config.model, device="meta"), config)
    return operations_of(model, config.adapter)


def figures(
    lengths: Lengths,
    operations: Operations,
    samples: int,
    paper_hours: float,
    peak: float,
    mfu: Sequence[float] = MFU,
) -> list[Figure]:
    """Balance of each layout, and GPU-hours that follow from it.

    Args:
        lengths: whole global batches of `GLOBAL_BATCH`.
        operations: of the model.
        samples: of the whole training.
        paper_hours: GPU-hours that the paper took for them.
        peak: FLOP/s of a GPU.
        mfu: assumed shares of ``peak``, while a rank computes.
    """
    each = operations.of(lengths.tokens, lengths.targets, lengths.num_images)
    hours = samples * each.mean() / peak / 3600
    found = [
        Figure(
            "operations a sample",
            each.mean() / 1e12,
            "TFLOP",
            note=f"{_shares(operations, lengths, each)}",
        ),
        Figure(
            "the paper's GPU-hours",
            paper_hours,
            "h",
            note=f"printed: 16 h x 64; these operations are {hours / paper_hours:.1%} of its peak",
        ),
    ]
    for name, layout in layouts().items():
        even = efficiency(layout, GLOBAL_BATCH, lengths.tokens, lengths.num_images)
        found.append(
            Figure(
                f"{name}: slowest rank's tokens / mean",
                even.rank_imbalance,
                "x",
                note=f"{even.micro_steps:.2f} micro-steps a step; "
                f"images {even.image_imbalance:.2f}",
            )
        )
        for share in mfu:
            found.append(
                Figure(
                    f"{name}: PROJECTED at an ASSUMED {share:.0%} MFU",
                    hours / share * even.rank_imbalance,
                    "A100-h",
                    note=f"arithmetic: {hours / share:,.0f} h of work x the slowest rank",
                )
            )
    return found


def _shares(operations: Operations, lengths: Lengths, each: np.ndarray) -> str:
    none = np.zeros(len(each))
    parts: Mapping[str, np.ndarray] = {
        "decoder": operations.token * lengths.tokens,
        "attention": operations.of(lengths.tokens, none, none) - operations.token * lengths.tokens,
        "logits": operations.target * lengths.targets,
        "tower": operations.tower * lengths.num_images,
        "projector": operations.projector * lengths.num_images,
    }
    return ", ".join(f"{name} {part.sum() / each.sum():.1%}" for name, part in parts.items())
