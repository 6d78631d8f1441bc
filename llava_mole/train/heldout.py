"""Loss on held-out sets: per data set, per target token, over all ranks."""

from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Dataset

from llava_mole.data.collate import model_inputs
from llava_mole.data.records import Problem
from llava_mole.train.loss import IGNORE_INDEX, summed_cross_entropy


def heldout_losses(
    model: nn.Module,
    datasets: Mapping[str, Dataset],
    collate: Callable,
    batch_size: int,
    to_device: Callable[[dict], dict],
) -> tuple[dict[str, float], list[Problem]]:
    """``<name>/loss`` of each set, the mean cross-entropy of its target tokens.

    Returned with the samples that this rank could not read, which count nothing. Every rank runs
    the same number of forwards, as sharded models need; a rank without samples left runs one whose
    result does not count. Collective.

    Args:
        model: as wrapped for training, in eval mode.
        datasets: name to samples.
        collate: samples to a micro-batch, padded: rows need no layout.
        batch_size: samples per forward.
        to_device: moves a micro-batch.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    losses: dict[str, float] = {}
    problems: list[Problem] = []
    for name, dataset in datasets.items():
        totals = None
        for start in range(0, len(dataset), batch_size * ranks):
            first = start + rank * batch_size
            own = range(first, min(first + batch_size, len(dataset)))
            batch = to_device(collate([dataset[index] for index in (own or range(1))]))
            problems += batch["problems"] if own else []
            logits = model(**model_inputs(batch), use_cache=False).logits
            targets = batch["targets"]
            loss = summed_cross_entropy(logits, targets).double()
            found = torch.stack([loss, (targets != IGNORE_INDEX).sum().double()])
            if totals is None:
                totals = torch.zeros_like(found)
            totals += found * float(len(own) > 0)
        if totals is None:
            continue
        if dist.is_initialized():
            dist.all_reduce(totals)
        summed, count = totals.tolist()
        losses[f"{name}/loss"] = summed / max(count, 1)
    return losses, problems
