"""All arms compute the same loss and gradient on the same samples; else nothing is timed.

Every arm's own ``compute_loss`` is asked, on its own micro-batches, without dropout. Summed over
the samples the language loss must not depend on how rows are padded, packed or ordered, on which
positions have logits, or on the trainer.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from transformers import Trainer

from llava_mole.train.counts import count_step
from llava_mole.train.trainer import MoleTrainer
from llava_mole.tuner import MoleLayer, reset_balance_counts

# Of the loss, and of the gradient's norm. bfloat16 has 8 bits, and sends tokens to other experts.
_LOSS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
_GRADIENT = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
# A token between two experts may go to either in another order of summation.
_ROUTED_LOSS = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


class Outcome(NamedTuple):
    """What an arm computes over all samples.

    Attributes:
        loss: per target, over all of them; with a MoLE the routers' loss is in it.
        gradient: of the trained weights by name, a copy on the CPU in float32; empty for none.
    """

    loss: float
    gradient: Mapping[str, torch.Tensor]


def outcome(trainer: Trainer, gradient: bool = False) -> Outcome:
    """Loss, and gradient, of a trainer's arm over the samples of an epoch; nothing is updated.

    Args:
        trainer: `PeerTrainer` or `MoleTrainer`.
        gradient: whether to run backward too.
    """
    model, total, weights = trainer.model, 0.0, 0
    with _without_dropout(model), torch.set_grad_enabled(gradient):
        for step in trainer.get_train_dataloader():
            micro_batches = step.micro_batches()
            batch, _ = count_step(micro_batches, trainer.args.device)
            of_step = batch if isinstance(trainer, MoleTrainer) else batch.targets
            if isinstance(trainer, MoleTrainer) and trainer.is_mole:
                reset_balance_counts(model)
            # Arms may cut the samples into steps otherwise: one weighs as much as its targets.
            weights += batch.targets
            for inputs in micro_batches:
                inputs = trainer._prepare_inputs(inputs)
                with trainer.compute_loss_context_manager():
                    loss = trainer.compute_loss(model, inputs, num_items_in_batch=of_step)
                if gradient:
                    (loss * batch.targets).backward()
                total += loss.item() * batch.targets
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = {n: p.grad.float().cpu() / weights for n, p in trained.items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return Outcome(total / weights, found)


def check_loras(trainers: Mapping[str, Trainer], dtype: torch.dtype) -> dict[str, float]:
    """Holds all plain LoRAs to the first one, loss and gradient.

    Returns:
        Each arm's relative difference of the loss.

    Raises:
        RuntimeError: one differs, so that its speed would mean nothing.
    """
    found: dict[str, float] = {}
    first = None
    for name, trainer in trainers.items():
        own = outcome(trainer, gradient=True)
        if first is None:
            first_name, first = name, own
        found[name] = _same(name, own.loss, first_name, first.loss, _LOSS[dtype])
        _same_gradient(name, own, first_name, first, _GRADIENT[dtype])
    return found


def check_moles(
    trainers: Mapping[str, MoleTrainer],
    reference: Callable[[str], MoleTrainer],
    dtype: torch.dtype,
) -> dict[str, float]:
    """Holds each MoLE to the loop over its experts on padded rows.

    Args:
        trainers: the arms.
        reference: an arm's name -> the same on padded rows, made and let go one by one.
        dtype: of the base.

    Returns:
        Each arm's relative difference of the loss, balance loss included.

    Raises:
        RuntimeError: one differs, so that its speed would mean nothing.
    """
    found = {}
    for name, trainer in trainers.items():
        slow = reference(name)
        with _looping(slow.model):
            expected = outcome(slow).loss
        own = outcome(trainer).loss
        found[name] = _same(name, own, "its loop on padded rows", expected, _ROUTED_LOSS[dtype])
    return found


def _same(name: str, own: float, other_name: str, other: float, tolerance: float) -> float:
    difference = abs(own - other) / abs(other)
    if not difference <= tolerance:  # NaN differs
        raise RuntimeError(
            f"{name}: loss {own:.7g}, and {other:.7g} in {other_name}, on the same samples; "
            "not timed"
        )
    return difference


def _same_gradient(
    name: str, own: Outcome, other_name: str, other: Outcome, tolerance: float
) -> None:
    if own.gradient.keys() != other.gradient.keys():
        raise RuntimeError(f"{name} and {other_name} train different weights; not timed")
    largest, worst = max(
        (
            ((own.gradient[key] - theirs).norm() / theirs.norm().clamp(min=1e-12)).item(),
            key,
        )
        for key, theirs in other.gradient.items()
    )
    if not largest <= tolerance:
        raise RuntimeError(
            f"{name}: the gradient of {worst} differs from {other_name} by {largest:.2g} of its "
            "norm on the same samples; not timed"
        )


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """In training mode, so that checkpointing and the training paths are what is looked at."""
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    before = [module.p for module in dropouts]
    training = model.training
    model.train()
    _set(dropouts, [0.0] * len(dropouts))
    try:
        yield
    finally:
        _set(dropouts, before)
        model.train(training)


def _set(dropouts: Iterable[nn.Dropout], rates: Iterable[float]) -> None:
    for module, rate in zip(dropouts, rates, strict=True):
        module.p = rate


@contextmanager
def _looping(model: nn.Module) -> Iterator[None]:
    """The reference path through the experts."""
    layer = next(module for module in model.modules() if isinstance(module, MoleLayer))
    config = layer.state.configs["default"]
    before, config.dispatch = config.dispatch, "loop"
    try:
        yield
    finally:
        config.dispatch = before
