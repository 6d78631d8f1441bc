"""Arms of one process stand on the same base weights, held in memory once."""

import copy

from torch import nn


def share_parameters(model: nn.Module) -> nn.Module:
    """A copy of a model with the same parameters and buffers, not copies of them.

    An adapter that is attached to the copy leaves the original as it was.
    """
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
