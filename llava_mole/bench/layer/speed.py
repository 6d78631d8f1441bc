"""Times of the arms: forward and backward pass, and the decode step."""

import itertools
from collections.abc import Callable
from typing import Any

import torch

from llava_mole.bench.figures import Figure, say
from llava_mole.bench.layer.arm import Arm
from llava_mole.bench.layer.arms import (
    DENSE,
    FROZEN,
    MASK_LOOP,
    MIX_LORA,
    MOLE,
    PEFT,
    makers,
    named,
)
from llava_mole.bench.layer.check import check_decode, check_exactly, check_together, normal_like
from llava_mole.bench.layer.product import Frozen, Lora, Mole
from llava_mole.bench.layer.settings import Settings
from llava_mole.bench.layer.weights import Weights
from llava_mole.bench.timing import Times, ratio_figure, rounds

# A model's other layers put a layer's weights out of the caches between two of its decode steps.
DECODE_LAYERS = 8
_DECODE_TURNS = 16
_FLUSH_BYTES = 256 * 2**20  # more than any GPU's L2 cache


def time_figures(settings: Settings) -> list[Figure]:
    """Forward and backward pass of every arm over PEFT's; MoLE's over other mixtures'.

    Raises:
        RuntimeError: an arm computes something else than it should; it is not timed.
    """
    figures = []
    for shape in settings.shapes:
        where = f"{shape[0]}x{shape[1]}"
        say(f"{where}: comparing every arm with the oracle, in float64")
        check_exactly(_draw(settings, shape, torch.float64), settings.experts)
        weights = _draw(settings, shape)
        arms = {name: make() for name, make in makers(weights, settings.experts).items()}
        for count in settings.tokens:
            x = weights.tokens(count).requires_grad_()
            dy = normal_like(x)
            check_together(arms, settings.experts, x, dy)
            say(f"{where}: timing {len(arms)} arms on {count} tokens")
            times, peaks = _train_times(arms, x, dy, settings)
            what = f"{where}, T={count}"
            figures += _time_figures(what, times, settings, shape, count)
            figures += [
                Figure(f"{what}, {name}, peak beside weights", peak / 2**20, "MiB")
                for name, peak in peaks.items()
            ]
    return figures


def decode_figures(settings: Settings) -> list[Figure]:
    """One token at a time without gradients: MoLE over PEFT.

    Raises:
        RuntimeError: an arm computes something else than it should; it is not timed.
    """
    figures = []
    for shape in settings.shapes:
        what = f"{shape[0]}x{shape[1]}, decode"
        say(f"{what}: {DECODE_LAYERS} FFNs")
        layers = [_draw(settings, shape, seed=seed) for seed in range(DECODE_LAYERS)]
        tokens = layers[0].tokens(_DECODE_TURNS)
        arms = {FROZEN: Frozen(*layers), PEFT: Lora(*layers)}
        used = {PEFT: [weights.first(1) for weights in layers]}
        for K in settings.experts:
            used[named(MOLE, K)] = [weights.first(K) for weights in layers]
            arms[named(MOLE, K)] = Mole(*used[named(MOLE, K)])
        for name, arm in arms.items():
            arm.decoder.eval()
            if name in used:
                check_decode(name, arm, used[name], tokens)
        with torch.inference_mode():
            times = rounds(
                {name: _decoding(arm, tokens) for name, arm in arms.items()},
                lambda step: step(),
                settings.rounds,
                settings.device,
                turns=_DECODE_TURNS,
            )
        note = f"{DECODE_LAYERS} FFNs"
        for name in times:
            target = settings.decode_bar(shape) if name not in (FROZEN, PEFT) else None
            figures.append(ratio_figure(what, times, name, PEFT, target, note))
    return figures


def _draw(settings: Settings, shape, dtype: torch.dtype | None = None, seed: int = 0) -> Weights:
    dtype = dtype or getattr(torch, settings.dtype)
    return Weights.draw(shape, max(settings.experts), settings.r, dtype, settings.device, seed)


def _train_times(
    arms: dict[str, Arm], x: torch.Tensor, dy: torch.Tensor, settings: Settings
) -> tuple[Times, dict[str, int]]:
    """Times, and on a GPU the bytes that an arm takes at most beside weights and inputs."""
    device = settings.device
    on_gpu = device.startswith("cuda")
    flush = torch.empty(_FLUSH_BYTES if on_gpu else 0, dtype=torch.int8, device=device)

    def prepare(arm: Arm) -> None:
        x.grad = None
        arm.forget_gradients()
        flush.zero_()

    def work(arm: Arm) -> None:
        arm.train_step(x, dy)

    times = rounds(arms, work, settings.rounds, device, prepare)
    peaks = {}
    for name, arm in arms.items() if on_gpu else ():
        for other in arms.values():
            prepare(other)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work(arm)
        peaks[name] = torch.cuda.max_memory_allocated(device) - before
    return times, peaks


def _time_figures(what: str, times: Times, settings: Settings, shape, count: int) -> list[Figure]:
    figures = []
    bars = {named(MOLE, K): settings.time_bar(shape, count, PEFT, K) for K in settings.experts}
    for name in times:
        figures.append(ratio_figure(what, times, name, PEFT, bars.get(name)))
    for K in settings.experts:
        for kind in (MASK_LOOP, MIX_LORA, DENSE):
            target = settings.time_bar(shape, count, kind, K)
            figures.append(ratio_figure(what, times, named(MOLE, K), named(kind, K), target))
    return figures


def _decoding(arm: Frozen, tokens: torch.Tensor) -> Callable[[], Any]:
    """Every call is the step of the next token; all arms see the same ones in the same order."""
    steps = itertools.cycle([token[None, None] for token in tokens[0]])
    return lambda: arm.outputs(next(steps))
