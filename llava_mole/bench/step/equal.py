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


class Tolerance(NamedTuple):
    """Largest relative difference of the loss, and of each weight's gradient, in norm.

    The gradient is what shows a mistake: random weights guess, and their loss hardly depends on
    what they read.
    """

    loss: float
    gradient: float


# bfloat16 has 8 bits.
_PLAIN = {torch.float32: Tolerance(1e-5, 1e-3), torch.bfloat16: Tolerance(2e-2, 0.1)}
# A token between two experts may go to either in another order of summation.
_ROUTED = {torch.float32: Tolerance(1e-4, 2e-2), torch.bfloat16: Tolerance(2e-2, 0.5)}


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
        found[name] = _same(name, own, first_name, first, _PLAIN[dtype])
    return found


def check_moles(
    trainers: Mapping[str, MoleTrainer],
    reference: Callable[[str], MoleTrainer],
    dtype: torch.dtype,
) -> dict[str, float]:
    """Holds each MoLE to the loop over its experts on padded rows, loss and gradient.

    Args:
        trainers: the arms.
        reference: an arm's name -> the same on padded rows, made and let go one by one.
        dtype: of the base.

    Returns:
        Each arm's relative difference of the loss, the routers' losses included.

    Raises:
        RuntimeError: one differs, so that its speed would mean nothing.
    """
    found = {}
    for name, trainer in trainers.items():
        slow = reference(name)
        with _looping(slow.model):
            expected = outcome(slow, gradient=True)
        own = outcome(trainer, gradient=True)
        found[name] = _same(name, own, "its loop on padded rows", expected, _ROUTED[dtype])
    return found


def _same(name: str, own: Outcome, other_name: str, other: Outcome, tolerance: Tolerance) -> float:
    """The relative difference of the loss; raises RuntimeError where arms differ."""
    difference = abs(own.loss - other.loss) / abs(other.loss)
    if not difference <= tolerance.loss:  # NaN differs
        raise RuntimeError(
            f"{name}: loss {own.loss:.7g}, and {other.loss:.7g} in {other_name}, on the same "
            "samples; not timed"
        )
    if own.gradient.keys() != other.gradient.keys():
        raise RuntimeError(f"{name} and {other_name} train different weights; not timed")
    for key, theirs in other.gradient.items():
        apart = (own.gradient[key] - theirs).norm().item()
        if not apart <= tolerance.gradient * theirs.norm().item():
            raise RuntimeError(
                f"{name}: the gradient of {key} differs from that of {other_name} by {apart:.2g} "
                f"(its norm is {theirs.norm():.2g}) on the same samples; not timed"
            )
    return difference


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
