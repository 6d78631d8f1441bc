"""Which layer, linear and factor of an adapter a trainable parameter is."""

import re
from dataclasses import dataclass

import torch
from torch import nn

from llava_mole.model.freeze import part_of

PROJECTOR = "multi_modal_projector"


@dataclass(frozen=True)
class Piece:
    """Where a trainable parameter sits.

    Attributes:
        part: of `llava_mole.model.freeze.PARTS`: ``multi_modal_projector``, ``lora``, ``experts``
            or ``router``.
        layer: the decoder's layer, from 0; None for the projector.
        linear: the linear that it adapts, such as ``q_proj``; ``router`` for a router.
        factor: ``A`` or ``B`` of a LoRA; "" where there is no such factor.
    """

    part: str
    layer: int | None
    linear: str
    factor: str

    @property
    def is_adapter(self) -> bool:
        """Whether it belongs to the adapter, not to the projector."""
        return self.part != PROJECTOR


def piece_of(name: str) -> Piece:
    """The piece that a parameter's name says.

    Raises:
        ValueError: a trainable parameter of neither projector nor adapter.
    """
    part = part_of(name)
    words = name.split(".")
    if part == PROJECTOR:
        linear = words[-2] if words[-1] in ("weight", "bias") else words[-1]
        return Piece(part, None, linear, "")
    layer = re.search(r"\.(\d+)\.", name)
    index = None if layer is None else int(layer[1])
    if part == "lora":
        place = next(i for i, word in enumerate(words) if word.startswith("lora_"))
        return Piece(part, index, words[place - 1], words[place].removeprefix("lora_")[:1])
    if part == "router":
        return Piece(part, index, "router", "")
    if part == "experts":
        place = next(i for i, word in enumerate(words) if word.startswith("mole_"))
        return Piece(part, index, words[place].removeprefix("mole_"), words[-1])
    raise ValueError(
        f"{name} is trainable and neither of the projector nor of an adapter; freeze it with "
        "llava_mole.model.freeze.freeze(model, 'finetune')"
    )


def without_gradient(model: nn.Module) -> set[str]:
    """Names of the trainable A whose B is all zero: their gradient is exactly 0.

    A LoRA adds ``B A x``, so A's gradient has the factor B, which is zero at initialisation.
    """
    parameters = dict(model.named_parameters())
    found = set()
    for name, parameter in parameters.items():
        if parameter.requires_grad and piece_of(name).factor == "A":
            partner = re.sub(r"\blora_A\b", "lora_B", name)
            partner = re.sub(r"\.A$", ".B", partner)
            if partner in parameters and not torch.any(parameters[partner] != 0):
                found.add(name)
    return found
