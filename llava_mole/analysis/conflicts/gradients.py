"""Gradients of every domain's batches, and their inner products piece by piece.

All that is said about gradients follows from their inner products: a Gram matrix for each trainable
parameter, over all batches of all domains. Those of groups of parameters are sums of these.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from llava_mole.analysis.conflicts.pieces import Piece, piece_of, without_gradient
from llava_mole.data.collate import Sample, model_inputs
from llava_mole.train.loss import IGNORE_INDEX, summed_cross_entropy

GIB = 2**30
# Share of the free memory that gradients may take.
_SHARE = 0.8
# Columns of a gradient that are multiplied at once, in float64.
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Grams:
    """Inner products of M domains' N gradients each, for K pieces.

    Attributes:
        names: M names of the domains.
        batches: N.
        pieces: K pieces with a gradient.
        zero: pieces whose gradient is exactly 0 in every batch.
        values: (K, M·N, M·N) float64; batch i of domain d is row d·N + i.
        sizes: (K,) int64, numbers in each piece's gradient.
        losses: (M, N) float64, mean cross-entropy of each batch's target tokens.
        targets: (M, N) int64, target tokens of each batch.
    """

    names: tuple[str, ...]
    batches: int
    pieces: tuple[Piece, ...]
    zero: tuple[Piece, ...]
    values: np.ndarray
    sizes: np.ndarray
    losses: np.ndarray
    targets: np.ndarray

    def of(self, wanted: Callable[[Piece], bool]) -> np.ndarray:
        """The Gram matrix of all pieces that ``wanted`` accepts, (M·N, M·N) float64."""
        chosen = [index for index, piece in enumerate(self.pieces) if wanted(piece)]
        return self.values[chosen].sum(axis=0)


def gradient_bytes(model: nn.Module) -> int:
    """Bytes that one gradient of ``model`` takes in float32, without those that are exactly 0."""
    zero = without_gradient(model)
    return 4 * sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name not in zero
    )


def refuse_too_many(size: int, domains: int, batches: int, free: int | None) -> None:
    """Raises ValueError where gradients would not fit into memory, naming what would.

    Args:
        size: bytes of one gradient.
        domains: M.
        batches: N.
        free: bytes that are free; None where that is not known.
    """
    needed = size * domains * batches
    if free is None or needed <= _SHARE * free:
        return
    fitting = int(_SHARE * free // (size * domains))
    remedy = (
        f"lower --batches to {fitting}"
        if fitting >= 4
        else "lower adapter.r, compare fewer with --only, or take a machine with more memory"
    )
    raise ValueError(
        f"{domains} x {batches} gradients of {size / GIB:.2f} GiB are held at once: "
        f"{needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB of memory are free; {remedy}"
    )


def free_memory() -> int | None:
    """Bytes of memory that are free; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in text.splitlines() if line.startswith("MemAvailable:")]
    return 1024 * int(kilobytes[0]) if kilobytes else None


def domain_gradients(
    model: nn.Module,
    batches: Mapping[str, Sequence[Sequence[Sample]]],
    collate: Callable[[Sequence[Sample]], dict[str, Any]],
    *,
    micro_batch_size: int | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> Grams:
    """Gradients of the trainable weights by each batch of each domain, as Gram matrices.

    A batch's gradient is that of ``Σ CE / T``, T its target tokens: what one training step on that
    domain alone would follow. The losses of a MoLE's routers are left out, and so is dropout: the
    model is put into eval mode. Its ``grad`` is None afterwards.

    All gradients are held in float32 on the CPU, M·N times `gradient_bytes`; they are multiplied
    in float64.

    Args:
        model: as `llava_mole.train.adapter.attach` returns it, on its device.
        batches: name to N batches of samples, N the same for all; read one after the other.
        collate: samples to a micro-batch.
        micro_batch_size: samples of a forward at most; None takes a batch at once.
        autocast: dtype of mixed precision; None computes in the weights' own.
        progress: whether to show a progress bar.

    Raises:
        ValueError: numbers of batches that differ, a batch without a target, a gradient that is
            not finite, or nothing to train.
    """
    numbers = {name: len(own) for name, own in batches.items()}
    if len(set(numbers.values())) != 1:
        raise ValueError(f"every domain needs the same number of batches, not {numbers}")
    (count,) = set(numbers.values())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("the model has no trainable weight, so no gradient; attach an adapter")
    pieces = {name: piece_of(name) for name in trained}
    model.eval()
    rows: dict[str, list[torch.Tensor | None]] = {name: [] for name in trained}
    losses, targets = [], []
    with tqdm(total=len(batches) * count, unit="batch", disable=not progress) as bar:
        for name, own in batches.items():
            bar.set_description(f"gradients of {name}")
            for number in range(count):
                try:
                    loss, total = _backward(model, own[number], collate, micro_batch_size, autocast)
                except _NoTarget:
                    raise ValueError(
                        f"{name}: batch {number} has no target token, so no gradient; raise "
                        "--batch-size, or look at the labels with 'llava-mole data check'"
                    ) from None
                losses.append(loss)
                targets.append(total)
                _keep(trained, rows, f"{name}, batch {number}")
                bar.update()
    values, sizes = [], []
    found, zero = [], []
    for name, parameter in trained.items():
        gradients = rows.pop(name)
        if all(gradient is None for gradient in gradients):
            zero.append(pieces[name])
            continue
        values.append(_gram(gradients))
        sizes.append(parameter.numel())
        found.append(pieces[name])
    shape = (len(batches), count)
    side = len(batches) * count
    return Grams(
        tuple(batches),
        count,
        tuple(found),
        tuple(zero),
        np.stack(values) if values else np.zeros((0, side, side)),
        np.array(sizes, dtype=np.int64),
        np.array(losses).reshape(shape),
        np.array(targets, dtype=np.int64).reshape(shape),
    )


class _NoTarget(Exception):
    """A batch without a token to learn from."""


def _backward(
    model: nn.Module,
    samples: Sequence[Sample],
    collate: Callable,
    micro_batch_size: int | None,
    autocast: torch.dtype | None,
) -> tuple[float, int]:
    """Leaves the gradient of the batch's mean loss in ``grad``; the loss and its T."""
    total = sum(_targets(sample) for sample in samples)
    if total == 0:
        raise _NoTarget
    device = next(model.parameters()).device
    size = micro_batch_size or len(samples)
    model.zero_grad(set_to_none=True)
    mean = 0.0
    for start in range(0, len(samples), size):
        batch = collate(samples[start : start + size])
        batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
        mixed = (
            contextlib.nullcontext()
            if autocast is None
            else torch.autocast(device.type, dtype=autocast)
        )
        with mixed:
            logits = model(**model_inputs(batch), use_cache=False).logits
            loss = summed_cross_entropy(logits, batch["targets"]) / total
        loss.backward()
        mean += loss.item()
    return mean, total


def _targets(sample: Sample) -> int:
    # The first token follows nothing, so it is never predicted.
    return int((sample["encoded"].labels[1:] != IGNORE_INDEX).sum())


def _keep(
    trained: Mapping[str, nn.Parameter], rows: dict[str, list[torch.Tensor | None]], where: str
) -> None:
    """Moves every ``grad`` to ``rows``; None stands for one that is missing or exactly 0."""
    for name, parameter in trained.items():
        gradient, parameter.grad = parameter.grad, None
        if gradient is None or not torch.any(gradient != 0):
            rows[name].append(None)
            continue
        if not torch.isfinite(gradient).all():
            raise ValueError(f"{where}: the gradient of {name} is NaN or infinite")
        rows[name].append(gradient.flatten().to("cpu", torch.float32))


def _gram(gradients: Sequence[torch.Tensor | None]) -> np.ndarray:
    """All inner products, (R, R) float64."""
    there = [index for index, gradient in enumerate(gradients) if gradient is not None]
    size = gradients[there[0]].numel()
    gram = torch.zeros(len(there), len(there), dtype=torch.float64)
    for start in range(0, size, _CHUNK):
        block = torch.stack([gradients[i][start : start + _CHUNK] for i in there]).double()
        gram += block @ block.T
    values = np.zeros((len(gradients), len(gradients)))
    values[np.ix_(there, there)] = gram.numpy()
    return values
