"""What an optimizer step consumes, counted over all ranks and micro-batches before it runs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from llava_mole.train.loss import IGNORE_INDEX


class GlobalBatch(NamedTuple):
    """What one optimizer step consumes over all ranks and micro-steps.

    Attributes:
        targets: target tokens, the normaliser of the language loss.
        sequences: sequences (packed segments count each), the normaliser of the balance loss.
        tokens: positions the language model reads, padding excluded.
        unreadable: samples that only stand in for one that can't be read.
    """

    targets: int
    sequences: int
    tokens: int
    unreadable: int = 0


class Counts(NamedTuple):
    """What one micro-batch adds to its global batch.

    Attributes:
        targets: see `GlobalBatch`.
        sequences: see `GlobalBatch`.
        unreadable: see `GlobalBatch`.
        tokens: see `GlobalBatch`.
        positions: what the language model computes, padding included.
        images: what the vision tower reads.
    """

    targets: int
    sequences: int
    unreadable: int
    tokens: int
    positions: int
    images: int


def count(batch: dict[str, Any]) -> Counts:
    """Counts of one micro-batch of a collator."""
    positions = batch["input_ids"].numel()
    mask, pixels = batch.get("attention_mask"), batch.get("pixel_values")
    return Counts(
        targets=int((batch["targets"] != IGNORE_INDEX).sum()),
        sequences=batch["dataset_ids"].numel(),
        unreadable=len(batch.get("problems", ())),
        tokens=positions if mask is None else int(mask.sum()),
        positions=positions,
        images=0 if pixels is None else len(pixels),
    )


def count_step(
    micro_batches: Sequence[dict[str, Any]], device: torch.device
) -> tuple[GlobalBatch, np.ndarray]:
    """Counts of one optimizer step over all ranks. Collective, one reduction.

    Args:
        micro_batches: this rank's, as many as every other rank has.
        device: where collectives run.

    Returns:
        The totals, and the tokens, positions and images of each rank and micro-step, (W, S, 3).
    """
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    table = torch.zeros(ranks, len(micro_batches), len(Counts._fields), dtype=torch.float64)
    table[rank] = torch.tensor([count(batch) for batch in micro_batches], dtype=torch.float64)
    if dist.is_initialized():
        table = table.to(device)
        dist.all_reduce(table)
        table = table.cpu()
    total = Counts(*(int(value) for value in table.sum((0, 1)).tolist()))
    whole = GlobalBatch(total.targets, total.sequences, total.tokens, total.unreadable)
    return whole, table[:, :, 3:].numpy()
