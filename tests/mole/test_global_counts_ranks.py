"""The counts of the global batch over two real processes."""

import torch
from torch import distributed, multiprocessing

from llava_mole.mole import GlobalCounts


def _rank(rank, path, results):
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    buffer = GlobalCounts()
    buffer.add(torch.full((2, 3), float(rank + 1)))
    total = buffer.add(torch.full((2, 3), 10.0 * (rank + 1)))
    results[rank] = total.flatten().tolist()
    distributed.destroy_process_group()


def test_counts_are_summed_over_ranks_and_micro_steps(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        results = manager.dict()
        processes = [
            context.Process(target=_rank, args=(rank, tmp_path / "store", results))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert dict(results) == {0: [33.0] * 6, 1: [33.0] * 6}
