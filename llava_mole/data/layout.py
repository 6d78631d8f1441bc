"""How a global batch becomes the micro-batches of each rank.

A layout is a pure function of the samples' lengths and image counts, so every rank computes the
same one for itself. It only rearranges inside the global batch: which samples an optimizer step
sees never depends on it. Three ways:

- in order: runs of B samples, dealt to one rank after the other;
- by modality and length (LLaVA's ``group_by_modality_length``, but within a global batch): samples
  with images apart from text, similar lengths together, so that padding is short;
- packed: the longest sample first, always into the least loaded of W x S rows, with the fewest
  micro-steps S at which every row stays within its budget of tokens. Fuller rows than that would
  save a micro-step only by making ranks wait for the longest row of each.

In the last two, rows of similar work share a micro-step, since ranks wait for one another there
(ZeRO reduces gradients after every backward), and a rank that got the larger row of one micro-step
gets a smaller one of another.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# [rank][micro-step] -> positions in the global batch
Rows = list[list[list[int]]]


@dataclass(frozen=True)
class Layout:
    """The rule by which global batches are dealt.

    Attributes:
        world_size: W, ranks.
        batch_size: B, samples of a micro-batch; not used by packing.
        group_by_modality_length: see above.
        packing_length: tokens of a packed row at most; None means padded micro-batches.
    """

    world_size: int
    batch_size: int = 1
    group_by_modality_length: bool = False
    packing_length: int | None = None

    def __call__(self, lengths: Sequence[int], num_images: Sequence[int]) -> Rows:
        """Deals one global batch of N samples.

        Args:
            lengths: tokens of each sample, image tokens included, (N,).
            num_images: images of each sample, (N,).

        Returns:
            For each rank and micro-step the positions of its samples; the same number of
            micro-steps on all ranks, no row empty, every position once.

        Raises:
            ValueError: a sample is longer than ``packing_length``, or N does not divide.
        """
        lengths, num_images = list(map(int, lengths)), list(map(int, num_images))
        count, at_once = len(lengths), self.world_size
        if self.packing_length is None:
            at_once *= self.batch_size
        if not count or count % at_once:
            raise ValueError(
                f"a global batch of {count} samples is no multiple of {at_once}; change "
                "train.global_batch_size, train.per_device_train_batch_size or the ranks."
            )
        if self.packing_length is not None:
            return self._packed(lengths, num_images)
        order = list(range(count))
        if self.group_by_modality_length:
            order.sort(key=lambda i: (num_images[i] == 0, -lengths[i], -num_images[i], i))
        size = self.batch_size
        rows = [order[start : start + size] for start in range(0, count, size)]
        if self.group_by_modality_length:
            # What a padded row costs: its longest sample, as often as it has samples.
            return self._dealt(
                rows,
                [size * max(lengths[i] for i in row) for row in rows],
                [sum(num_images[i] for i in row) for row in rows],
            )
        return [rows[rank :: self.world_size] for rank in range(self.world_size)]

    def describe(self) -> str:
        """The rule in words."""
        if self.packing_length is not None:
            return f"packed into rows of at most {self.packing_length:,} tokens, longest first"
        how = "grouped by modality and length" if self.group_by_modality_length else "in order"
        return f"micro-batches of {self.batch_size} samples, padded, {how}"

    def _packed(self, lengths: list[int], num_images: list[int]) -> Rows:
        budget, ranks = self.packing_length, self.world_size
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[longest] > budget:
            raise ValueError(
                f"sample {longest} of the global batch has {lengths[longest]:,} tokens, more than "
                f"data.packing_length {budget:,}, and samples are never cut; raise "
                "data.packing_length, or lower model.model_max_length."
            )
        order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], -num_images[i], i))
        steps = -(-sum(lengths) // (ranks * budget))
        # Ends at the latest with one sample a row.
        while (rows := _least_loaded(order, lengths, num_images, ranks * steps, budget)) is None:
            steps += 1
        return self._dealt(
            rows,
            [sum(lengths[i] for i in row) for row in rows],
            [sum(num_images[i] for i in row) for row in rows],
        )

    def _dealt(self, rows: list[list[int]], work: list[int], num_images: list[int]) -> Rows:
        """Rows of similar work at the same micro-step, the totals of ranks even."""
        ranks = self.world_size
        order = sorted(range(len(rows)), key=lambda r: (-work[r], -num_images[r], r))
        dealt: Rows = [[] for _ in range(ranks)]
        totals = [(0, 0)] * ranks
        for start in range(0, len(rows), ranks):
            neediest = sorted(range(ranks), key=lambda rank: (totals[rank], rank))
            for rank, row in zip(neediest, order[start : start + ranks], strict=True):
                dealt[rank].append(rows[row])
                totals[rank] = (totals[rank][0] + work[row], totals[rank][1] + num_images[row])
        return dealt


def _least_loaded(order, lengths, num_images, count: int, budget: int) -> list[list[int]] | None:
    """Samples of ``order`` one by one into the least loaded of ``count`` rows; None: no room."""
    rows: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, 0, row) for row in range(count)]
    for sample in order:
        tokens, images, row = loads[0]
        if tokens + lengths[sample] > budget:
            return None
        rows[row].append(sample)
        heapq.heapreplace(loads, (tokens + lengths[sample], images + num_images[sample], row))
    return [sorted(row) for row in rows]


@dataclass(frozen=True)
class Efficiency:
    """What a layout makes of the tokens, as shares and ratios.

    Attributes:
        useful_tokens: share of the computed positions that are not padding.
        rank_imbalance: tokens that the slowest rank of each micro-step computes over the mean of
            all ranks; 1 is even. Ranks wait for one another at each micro-step.
        image_imbalance: the same of images; 1 where there are none.
        micro_steps: micro-steps per optimizer step, the mean.
    """

    useful_tokens: float
    rank_imbalance: float
    image_imbalance: float
    micro_steps: float


class Work:
    """Adds up what optimizer steps computed, for `Efficiency`."""

    def __init__(self) -> None:
        self.steps = self.micro_steps = 0
        self._totals = np.zeros(3)
        self._slowest = np.zeros(3)

    def add(self, work: np.ndarray) -> None:
        """One optimizer step.

        Args:
            work: useful tokens, computed positions and images of each rank's micro-batches,
                (W, S, 3).
        """
        ranks, micro_steps, _ = work.shape
        self.steps += 1
        self.micro_steps += micro_steps
        self._totals += work.sum((0, 1))
        self._slowest += work.max(0).sum(0) * ranks

    @property
    def efficiency(self) -> Efficiency:
        """Of all steps so far."""
        useful, computed, images = self._totals.tolist()
        _, slowest, most_images = self._slowest.tolist()
        return Efficiency(
            useful / computed if computed else 1.0,
            slowest / computed if computed else 1.0,
            most_images / images if images else 1.0,
            self.micro_steps / max(self.steps, 1),
        )


def efficiency(
    layout: Layout,
    global_batch_size: int,
    lengths: np.ndarray,
    num_images: np.ndarray,
) -> Efficiency:
    """What ``layout`` makes of an epoch, or a part of it.

    Args:
        layout: the rule.
        global_batch_size: N; samples behind the last whole global batch are not counted.
        lengths: tokens of each sample in the global order, (n,).
        num_images: images of each sample in the global order, (n,).

    Raises:
        ValueError: what `Layout` raises, or less than one global batch.
    """
    if len(lengths) < global_batch_size:
        raise ValueError(
            f"{len(lengths)} samples are less than one global batch of {global_batch_size}."
        )
    total = Work()
    for start in range(0, len(lengths) - global_batch_size + 1, global_batch_size):
        part = slice(start, start + global_batch_size)
        own, images = np.asarray(lengths[part]), np.asarray(num_images[part])
        padded = layout.packing_length is None
        total.add(
            np.array(
                [
                    [
                        (
                            own[row].sum(),
                            len(row) * own[row].max() if padded else own[row].sum(),
                            images[row].sum(),
                        )
                        for row in rows
                    ]
                    for rows in layout(own, images)
                ],
                dtype=np.float64,
            )
        )
    return total.efficiency
