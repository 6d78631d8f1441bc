"""What a rank's data loader yields: one item an optimizer step, the list of its micro-batches.

The sampler gives every rank the same global batches; dataset and collator, in the data workers,
deal one by its `Layout` and make this rank's part of it. So the number of micro-batches may differ
from step to step, and going on in the middle of an epoch skips indices, not samples.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from llava_mole.data.build import OpenData
from llava_mole.data.collate import Sample
from llava_mole.data.layout import Layout
from llava_mole.data.sampler import EpochSampler
from llava_mole.train.config import RunConfig

Index = tuple[int, int]


def layout_of(config: RunConfig, world_size: int) -> Layout:
    """How ``config`` deals its global batches to ``world_size`` ranks."""
    data = config.data
    packing_length = None
    if data.packing:
        packing_length = data.packing_length or config.model.model_max_length
    return Layout(
        world_size,
        config.train.per_device_train_batch_size,
        data.group_by_modality_length,
        packing_length,
    )


def refuse_samples_longer_than_a_row(data: OpenData, layout: Layout) -> None:
    """Raises ValueError, naming the first sample that no packed row can take."""
    if layout.packing_length is None:
        return
    for records, keep, lengths in zip(data.sets, data.audit.keep, data.lengths, strict=False):
        too_long = np.flatnonzero(lengths > layout.packing_length)
        if len(too_long):
            record = records.record(int(keep[too_long[0]]))
            raise record.bad(
                f"takes {lengths[too_long[0]]:,} tokens, more than data.packing_length "
                f"{layout.packing_length:,} ({len(too_long):,} such sample(s) in "
                f"{records.name!r}), and samples are never cut; raise data.packing_length, or "
                "lower model.model_max_length"
            )


class GlobalBatches(BatchSampler):
    """The global batches of an epoch, N ``(data set, row)`` pairs each, the same on every rank."""

    def __init__(self, sampler: EpochSampler):
        """Groups what ``sampler`` yields; it yields whole global batches."""
        super().__init__(sampler, sampler.global_batch_size, drop_last=False)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that is yielded next."""
        self.sampler.set_epoch(epoch)


class RankSteps(Dataset):
    """This rank's samples of a global batch, dealt to micro-batches."""

    def __init__(
        self,
        samples: Dataset,
        lengths: Sequence[np.ndarray],
        num_images: Sequence[np.ndarray],
        layout: Layout,
        rank: int,
    ):
        """Sets the layout.

        Args:
            samples: indexed by ``(data set, row)``.
            lengths: tokens of each sample by data set and row.
            num_images: images of each sample by data set and row.
            layout: deals global batches.
            rank: whose part is made.
        """
        self.samples, self.layout, self.rank = samples, layout, rank
        self.lengths, self.num_images = lengths, num_images

    def __len__(self) -> int:
        return len(self.samples)

    def dealt(self, batch: Sequence[Index]) -> list[list[Index]]:
        """The pairs of ``batch`` that are this rank's, by micro-step."""
        lengths = [self.lengths[dataset][row] for dataset, row in batch]
        num_images = [self.num_images[dataset][row] for dataset, row in batch]
        rows = self.layout(lengths, num_images)[self.rank]
        return [[batch[position] for position in row] for row in rows]

    def __getitems__(self, batch: Sequence[Index]) -> list[list[Sample]]:
        """What the data loader's workers ask for: the samples of each micro-batch."""
        return [[self.samples[index] for index in row] for row in self.dealt(batch)]


class Step:
    """The micro-batches of an optimizer step, their tensors in one buffer of each dtype.

    Each tensor that a worker hands over costs a file descriptor on both sides, and a step may
    have hundreds of them while processes may often have 1024 descriptors.
    """

    def __init__(self, micro_batches: Sequence[dict[str, Any]]):
        """Copies the tensors of ``micro_batches`` together."""
        pieces: dict[torch.dtype, list[torch.Tensor]] = {}
        self._plan = []
        for batch in micro_batches:
            plan = {}
            for key, value in batch.items():
                if isinstance(value, torch.Tensor):
                    pieces.setdefault(value.dtype, []).append(value.reshape(-1))
                    value = (value.dtype, value.shape)
                plan[key] = value
            self._plan.append(plan)
        self._buffers = {dtype: torch.cat(tensors) for dtype, tensors in pieces.items()}

    def pin_memory(self) -> "Step":
        """Called by the data loader."""
        self._buffers = {dtype: buffer.pin_memory() for dtype, buffer in self._buffers.items()}
        return self

    def micro_batches(self) -> list[dict[str, Any]]:
        """The micro-batches; their tensors are views."""
        used = dict.fromkeys(self._buffers, 0)
        batches = []
        for plan in self._plan:
            batch = dict(plan)
            for key, value in plan.items():
                if isinstance(value, tuple):
                    dtype, shape = value
                    start = used[dtype]
                    used[dtype] += shape.numel()
                    batch[key] = self._buffers[dtype][start : used[dtype]].view(shape)
            batches.append(batch)
        return batches


class StepCollator:
    """Collates each micro-batch of a step."""

    def __init__(self, collate: Callable[[Sequence[Sample]], dict[str, Any]]):
        """``collate``: of one micro-batch."""
        self.collate = collate

    def __call__(self, micro_batches: Sequence[Sequence[Sample]]) -> Step:
        """What `RankSteps` gives, as a `Step`."""
        return Step([self.collate(samples) for samples in micro_batches])


class TrainLoader(DataLoader):
    """A DataLoader of `Step`s that tells its `GlobalBatches` the epoch, which HF's loop asks."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that is iterated next."""
        self.batch_sampler.set_epoch(epoch)


def next_step(iterator: Iterator[Step]) -> list[dict[str, Any]]:
    """The micro-batches of the next optimizer step."""
    return next(iterator).micro_batches()
