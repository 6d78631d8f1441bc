"""This rank's micro-batches: global batch i is the i-th run of N samples in any layout."""

from collections.abc import Iterator

from torch.utils.data import BatchSampler, DataLoader

from llava_mole.data.sampler import EpochSampler

Index = tuple[int, int]


class RankBatches(BatchSampler):
    """Cuts each global batch of an `EpochSampler` into micro-steps and ranks, and keeps ours.

    Micro-step s of rank r takes the samples ``[(s·W + r)·B, (s·W + r + 1)·B)`` of the global
    batch of ``N = steps·W·B``. No sample is repeated or dropped to make ranks even: the sampler
    yields whole global batches.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, rank: int, world_size: int):
        """Sets the layout.

        Args:
            sampler: the global order.
            batch_size: B, samples of one forward on one rank.
            rank: this rank r.
            world_size: W.
        """
        assert sampler.global_batch_size % (batch_size * world_size) == 0
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that is yielded next."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """Micro-batches of this rank in an epoch."""
        return len(self.sampler) // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[Index]]:
        micro_batch: list[Index] = []
        for position, index in enumerate(self.sampler):
            if position // self.batch_size % self.world_size == self.rank:
                micro_batch.append(index)
            if len(micro_batch) == self.batch_size:
                yield micro_batch
                micro_batch = []


class TrainLoader(DataLoader):
    """A DataLoader that tells its `RankBatches` the epoch, which HF's loop asks of it."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that is iterated next."""
        self.batch_sampler.set_epoch(epoch)
