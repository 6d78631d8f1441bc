"""The global order of an epoch, the same for any number of ranks and workers."""

import logging
from collections.abc import Iterator

import torch

from llava_mole.data.mixture import Mixture

logger = logging.getLogger(__name__)


class EpochSampler(torch.utils.data.Sampler[tuple[int, int]]):
    """Yields the mixture's ``(data set, row)`` pairs of one epoch in whole global batches.

    Every rank has the same sampler and takes its share of each global batch, so global batch i is
    always the i-th run of N samples. Every epoch has the same number of global batches, though
    fractional weights can make the samples vary by a few: those left over at the end, which a
    shuffled order makes a random few, are not shown, and the log says how many.

    Args:
        mixture: gives the order.
        global_batch_size: N, samples of all ranks and accumulation steps together.

    Raises:
        ValueError: an epoch has less than one global batch.
    """

    def __init__(self, mixture: Mixture, global_batch_size: int) -> None:
        self.mixture = mixture
        self.global_batch_size = global_batch_size
        self.epoch = 0
        fewest = sum(int(part.per_epoch) for part in mixture.parts)
        self.num_samples = fewest // global_batch_size * global_batch_size
        if not self.num_samples:
            raise ValueError(
                f"an epoch of the mixture has {fewest} samples, less than one global batch of "
                f"{global_batch_size}; lower global_batch_size or raise the weights"
            )

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that is yielded next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = self.mixture.epoch(self.epoch)
        left_over = len(order) - self.num_samples
        if left_over:
            logger.info(
                "epoch %d: %d of %d samples do not fill a global batch of %d and are left out",
                self.epoch,
                left_over,
                len(order),
                self.global_batch_size,
            )
        # A global batch at a time: millions of pairs as Python objects would take gigabytes.
        for start in range(0, self.num_samples, self.global_batch_size):
            yield from map(tuple, order[start : start + self.global_batch_size].tolist())
