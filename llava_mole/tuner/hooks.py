"""What runs around a forward: its sequences are read off before, the balance loss added after."""

from collections.abc import Mapping

import torch
from torch import nn

from llava_mole.mole import sequence_layout
from llava_mole.tuner.forwards import Forward
from llava_mole.tuner.images import ImageFinder, Pooled, named_arguments
from llava_mole.tuner.state import RoutingState


class StackHook:
    """Reads the sequences off the decoder stack's own arguments, before and after it runs."""

    def __init__(self, state: RoutingState, images: ImageFinder):
        self.state = state
        self.images = images
        self._pooled: Pooled | None = None

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook: finds masks and positions, starts recording."""
        arguments = named_arguments(module, args, kwargs)
        embeddings, cache = arguments.get("inputs_embeds"), arguments.get("past_key_values")
        tokens = arguments["input_ids"] if embeddings is None else embeddings
        layout = _layout(arguments, tokens, cache)
        token_ids = self.images.take_ids()
        if self.state.reads_images:
            self._find_images(token_ids, embeddings, layout, cache)
        self.state.begin(*layout)

    def _find_images(self, token_ids, embeddings, layout, cache) -> None:
        ids = layout[0].flatten()
        self._pooled = None
        try:
            self._pooled = self.images.pooled(token_ids, embeddings, layout, cache)
            forward = Forward(ids, self._pooled.images)
        except LookupError as error:
            # Said to whoever asks for them: with the adapter disabled nobody does.
            forward = Forward(ids, None, str(error))
        self.state.forwards.begin(forward)

    def before_attention(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook of every layer's attention, where routers read images."""
        self.state.forwards.enter_layer(kwargs.get("position_embeddings"))

    def after(self, module: nn.Module, args: tuple, output: object) -> None:
        """A forward hook: stops recording."""
        if self._pooled is not None:
            self.images.keep(self._pooled, output)
            self._pooled = None
        self.state.forwards.end()
        self.state.end()


def _layout(arguments: Mapping, tokens: torch.Tensor, cache: object) -> tuple[torch.Tensor, int]:
    """The sequences that the stack is called with."""
    prepared, positions = (arguments.get(name) for name in ("attention_mask", "position_ids"))
    if isinstance(prepared, Mapping):  # by kind of layer
        prepared = prepared.get("full_attention", next(iter(prepared.values()), None))
    mask = prepared if isinstance(prepared, torch.Tensor) else None
    if not isinstance(positions, torch.Tensor) or (prepared is not None and mask is None):
        positions = None  # beside a mask of another kind they may count padding
    several = tokens.shape[1] > 1
    past = 0
    if mask is not None and mask.ndim == 4 and several and cache is not None:
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
