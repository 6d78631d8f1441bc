"""Which expert each token of a model's last forward went to, layer by layer.

Legend: N MoLE layers, B rows, L tokens a row, K experts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from llava_mole.tuner import MoleLayer


class Choices(NamedTuple):
    """The last forward's routing, on the CPU.

    Attributes:
        expert: (N, B, L) int64, the chosen expert (with dense routing, the one of the largest
            weight); padding has one too, which means nothing.
        prob: (N, B, L) float32, its probability.
    """

    expert: torch.Tensor
    prob: torch.Tensor


def layers_of(model: nn.Module) -> tuple[int, ...]:
    """The decoder layers that have experts, counted from 0, in order.

    Raises:
        ValueError: the model has none.
    """
    layers = sorted(module.index for module in _mole_layers(model))
    if not layers:
        raise ValueError(
            "the model has no MoLE adapter, so nothing is routed; give a run that was finetuned "
            "with adapter.type: mole"
        )
    return tuple(layers)


def experts_of(model: nn.Module) -> int:
    """K of the model's active MoLE adapter."""
    state = next(_mole_layers(model)).state
    return max(config.num_experts for config in state.configs.values())


def is_dense(model: nn.Module) -> bool:
    """Whether all experts compute every token, so that none is chosen."""
    state = next(_mole_layers(model)).state
    return any(config.routing == "dense" for config in state.configs.values())


def choices_of(model: nn.Module, shape: tuple[int, int]) -> Choices:
    """How the last forward routed its tokens.

    Args:
        model: with one active MoLE adapter.
        shape: (B, L) of the forward's ``input_ids``.

    Raises:
        ValueError: there was no forward, or several adapters were active.
    """
    records = next(_mole_layers(model)).state.records
    if len(records) != 1:
        raise ValueError(
            f"the last forward was routed by {len(records)} MoLE adapters; run one with exactly one"
        )
    (routes,) = records.values()
    ordered = [routes[layer] for layer in sorted(routes)]
    expert = torch.stack([route.choice.cpu() for route in ordered])
    prob = torch.stack(
        [r.probs.float().cpu().gather(1, r.choice.cpu()[:, None])[:, 0] for r in ordered]
    )
    return Choices(expert.view(-1, *shape), prob.view(-1, *shape))


def places_of(layers: Sequence[int], wanted: Sequence[int] | None) -> list[int]:
    """Where the ``wanted`` layers stand among ``layers``; all of them for None.

    Raises:
        ValueError: one that is not there.
    """
    if wanted is None:
        return list(range(len(layers)))
    for layer in wanted:
        if layer not in layers:
            raise ValueError(f"layer {layer} has no experts; those that have: {_ranges(layers)}")
    return [list(layers).index(layer) for layer in dict.fromkeys(wanted)]


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in words, as ``0 to 3, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs)


def _mole_layers(model: nn.Module):
    return (module for module in model.modules() if isinstance(module, MoleLayer))
