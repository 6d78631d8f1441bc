"""Bytes that one FFN keeps for its backward pass, a token; on any machine the same."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from llava_mole.bench.figures import Figure, say
from llava_mole.bench.layer.arm import Arm
from llava_mole.bench.layer.arms import (
    DENSE,
    MASK_LOOP,
    MIX_LORA,
    MOLE,
    PEFT,
    makers,
    named,
)
from llava_mole.bench.layer.product import Lora, Mole
from llava_mole.bench.layer.settings import SAVED_GROWTH_BAR, Settings
from llava_mole.bench.layer.weights import Weights
from llava_mole.bench.saved import bytes_saved

UNIT = "KiB/token"
# What get_peft_model makes of a bfloat16 base unless told otherwise.
_FP32 = "float32 adapters"


def saved_figures(settings: Settings) -> list[Figure]:
    """KiB a token and FFN of every arm, and MoLE's over others'; bfloat16 on the CPU."""
    say(f"saved bytes at {settings.saved_shape[0]}x{settings.saved_shape[1]}")
    saved = kib_per_token(settings)
    where = f"{settings.saved_shape[0]}x{settings.saved_shape[1]}, saved"
    figures = [Figure(f"{where}, {name}", value, UNIT) for name, value in saved.items()]
    experts = settings.saved_experts
    for K in experts:
        mine = named(MOLE, K)
        for kind in (PEFT, MASK_LOOP, MIX_LORA, DENSE):
            bar = kind if kind == PEFT else named(kind, K)
            ratio, target = saved[mine] / saved[bar], settings.saved_bar(kind, K)
            figures.append(Figure(f"{where}, {mine} / {bar}", ratio, "x", target))
    few, many = (named(MOLE, K) for K in (min(experts), max(experts)))
    target = SAVED_GROWTH_BAR if settings.saved_is_protocol else None
    figures.append(Figure(f"{where}, {many} / {few}", saved[many] / saved[few], "x", target))
    return figures


def kib_per_token(settings: Settings) -> dict[str, float]:
    """KiB that every arm saves, a token; the balance loss's included, parameters not."""
    experts = settings.saved_experts
    weights = Weights.draw(settings.saved_shape, max(experts), settings.r, torch.bfloat16)
    x = weights.tokens(settings.saved_tokens).requires_grad_()
    found = {}
    for name, make in _makers(weights, experts).items():
        arm = make()
        found[name] = bytes_saved(lambda arm=arm: arm(x), arm.parameters()) / 1024 / x.shape[1]
    return found


def _makers(weights: Weights, experts: Sequence[int]) -> dict[str, Callable[[], Arm]]:
    found = {}
    for name, make in makers(weights, experts).items():
        found[name] = make
        if name == PEFT:
            found[f"{name}, {_FP32}"] = partial(Lora, weights, fp32=True)
    for K in experts:
        found[f"{named(MOLE, K)}, {_FP32}"] = partial(Mole, weights.first(K), fp32=True)
    return found
