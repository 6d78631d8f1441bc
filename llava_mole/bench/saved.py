"""What a forward pass keeps in memory for its backward pass."""

from collections.abc import Callable, Iterable
from typing import Any

import torch


def bytes_saved(forward: Callable[[], Any], own: Iterable[torch.Tensor]) -> int:
    """Bytes that ``forward()`` saves for its backward pass.

    A storage that several operations save counts once, and whole, however small a part of it is
    saved. The number depends on shapes and dtypes alone, not on the machine.

    Args:
        forward: builds a graph, and returns what keeps it alive or nothing.
        own: tensors that are there anyway and do not count: parameters and buffers.
    """
    there = {tensor.untyped_storage().data_ptr() for tensor in own}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            # Held until the end, so that no address is used twice.
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in saved.values())
