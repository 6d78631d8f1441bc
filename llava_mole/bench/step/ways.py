"""LLaVA's way of making an optimizer step, and the levers that may be taken away from it.

What LLaVA-1.5's ``finetune_lora.sh`` and its training code do unless told otherwise: padded rows
(padding on the right), logits and labels at every position, gradient checkpointing,
``group_by_modality_length``, LoRA on every linear of the language model with dropout 0.05.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from llava_mole.data.collate import Sample
from llava_mole.data.tokens.encode import IGNORE_INDEX

LLAVA_DROPOUT = 0.05


@dataclass(frozen=True)
class Way:
    """How an arm makes a step.

    Attributes:
        grouped: LLaVA's ``group_by_modality_length``, else the order of the mixture.
        packed: samples in rows without padding, as the run's layout deals them, else padded.
        supervised: logits at supervised positions only, else at all, with labels.
        checkpointing: activations are computed again in backward.
        dropout: of the LoRAs.
    """

    grouped: bool = True
    packed: bool = False
    supervised: bool = False
    checkpointing: bool = True
    dropout: float = LLAVA_DROPOUT


LLAVA_NAME = "LLaVA's way"
LLAVA = Way()
# Grouping goes with padding: packed rows are dealt by length anyway.
ALL_LEVERS = Way(grouped=False, packed=True, supervised=True, checkpointing=False, dropout=0.0)


def ways() -> dict[str, Way]:
    """LLaVA's way, each lever alone, and all of them, by the name of the arm."""
    return {
        LLAVA_NAME: LLAVA,
        "in the mixture's order": replace(LLAVA, grouped=False),
        "LoRA dropout 0": replace(LLAVA, dropout=0.0),
        "supervised logits only": replace(LLAVA, supervised=True),
        "packed": replace(LLAVA, grouped=False, packed=True),
        "no checkpointing": replace(LLAVA, checkpointing=False),
        "all levers": ALL_LEVERS,
    }


def llava_order(
    lengths: Sequence[int], num_images: Sequence[int], global_batch: int, batch: int
) -> list[int]:
    """The order of ``group_by_modality_length``: samples in runs of one global batch each.

    Samples with images and text alone make runs of their own; what fills no run of either is put
    together at the end. Within a run the longest samples come first and each goes to the
    micro-batch with the fewest tokens that still has room. So ranks get even sums of tokens, but a
    micro-batch has long samples beside short ones: this is not what avoids padding. (LLaVA shuffles
    the samples before and the runs after; here both come in the order of the mixture.)

    Args:
        lengths: tokens of each sample, (n,).
        num_images: images of each sample, (n,).
        global_batch: samples of a run.
        batch: samples of a micro-batch.

    Returns:
        Each position once, micro-batch by micro-batch, (n,).
    """
    runs, left_over = [], []
    for kind in (True, False):
        own = [i for i, images in enumerate(num_images) if (images > 0) == kind]
        whole = len(own) // global_batch * global_batch
        runs += [own[start : start + global_batch] for start in range(0, whole, global_batch)]
        left_over += own[whole:]
    runs += [
        left_over[start : start + global_batch] for start in range(0, len(left_over), global_batch)
    ]
    return [i for run in runs for i in _evenly(run, lengths, batch)]


def _evenly(run: list[int], lengths: Sequence[int], batch: int) -> list[int]:
    chunks: list[list[int]] = [[] for _ in range(-(-len(run) // batch))]
    totals = [0] * len(chunks)
    for sample in sorted(run, key=lambda i: (-lengths[i], i)):
        open_chunks = [c for c in range(len(chunks)) if len(chunks[c]) < batch]
        chunk = min(open_chunks, key=totals.__getitem__)
        chunks[chunk].append(sample)
        totals[chunk] += lengths[sample]
    return [sample for chunk in chunks for sample in chunk]


@dataclass(frozen=True)
class WithLabels:
    """A collator whose batches have labels at all positions, as LLaVA's, and want all logits.

    Attributes:
        collate: one of ``llava_mole.data.collate``.
    """

    collate: Callable[[Sequence[Sample]], dict[str, Any]]

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Adds ``labels`` (B, L) int64 to the micro-batch and drops ``logits_to_keep``."""
        batch = self.collate(samples)
        labels = torch.full_like(batch["input_ids"], IGNORE_INDEX)
        labels[:, batch.pop("logits_to_keep") + 1] = batch["targets"]
        return {**batch, "labels": labels}
