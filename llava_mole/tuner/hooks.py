"""What runs around a forward: its sequences are read off before, the balance loss added after."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from llava_mole.mole import sequence_layout
from llava_mole.tuner.state import RoutingState


def named_arguments(module: nn.Module, args: tuple, kwargs: dict) -> dict[str, Any]:
    """A call's arguments by name, as a forward pre-hook gets them."""
    if not args:
        return kwargs
    names = inspect.signature(module.forward).parameters
    return {**dict(zip(names, args, strict=False)), **kwargs}


class StackHook:
    """Reads the sequences off the decoder stack's own arguments, before and after it runs."""

    def __init__(self, state: RoutingState):
        self.state = state

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook: finds masks and positions, starts recording."""
        self.state.begin(*_layout(named_arguments(module, args, kwargs)))

    def after(self, module: nn.Module, args: tuple, output: object) -> None:
        """A forward hook: stops recording."""
        self.state.end()


def _layout(arguments: Mapping) -> tuple[torch.Tensor, int]:
    """The sequences that the stack is called with."""
    tokens = arguments.get("inputs_embeds")
    if tokens is None:
        tokens = arguments["input_ids"]
    prepared, positions = (arguments.get(name) for name in ("attention_mask", "position_ids"))
    if isinstance(prepared, Mapping):  # by kind of layer
        prepared = prepared.get("full_attention", next(iter(prepared.values()), None))
    mask = prepared if isinstance(prepared, torch.Tensor) else None
    if not isinstance(positions, torch.Tensor) or (prepared is not None and mask is None):
        positions = None  # beside a mask of another kind they may count padding
    cache, past = arguments.get("past_key_values"), 0
    if mask is not None and mask.ndim == 4 and tokens.shape[1] > 1 and cache is not None:
        past = int(cache.get_seq_length())
    return sequence_layout(mask, positions, tokens.shape[:2], tokens.device, past)


class LossHook:
    """Adds the balance loss to the loss that a model in training returns, as AdaLoRA's tuner does.

    A hook on the base model, because ``PeftModel.forward`` does not pass through its tuner.
    """

    def __init__(self, state: RoutingState):
        self.state = state

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict, output: object) -> object:
        """A forward hook with keyword arguments; returns the output with the new loss."""
        loss = getattr(output, "loss", None)
        as_tuple = isinstance(output, tuple) and kwargs.get("labels") is not None
        if as_tuple:
            loss = output[0]
        wanted = module.training and torch.is_grad_enabled() and self.state.records
        if not wanted or not isinstance(loss, torch.Tensor):
            return output
        # Nobody says here where an optimizer step ends, so micro-steps are not accumulated.
        self.state.reset_global_counts()
        balance = sum(self.state.balance_loss(name, None) for name in self.state.records)
        total = loss + (balance * self._share(kwargs)).to(loss.device)
        if as_tuple:
            return (total, *output[1:])
        output.loss = total
        return output

    @staticmethod
    def _share(kwargs: dict) -> torch.Tensor | float:
        """This micro-batch's share of the batch, where Trainer's token normalisation is on.

        Trainer then sums micro-batch losses without dividing by their number, so the whole balance
        loss would be counted once per micro-batch.
        """
        labels, num_items = kwargs.get("labels"), kwargs.get("num_items_in_batch")
        targets = kwargs.get("shift_labels")
        if targets is None and labels is not None:
            targets = labels[..., 1:]  # a row's first token is never predicted, nor counted
        if targets is None or num_items is None:
            return 1.0
        return (targets != -100).sum() / num_items
