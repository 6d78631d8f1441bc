"""Finds the FFNs and attention linears of a decoder, whatever its names are.

Rules, by structure: the decoder stack is the module that ``get_decoder()`` names; its layers are
the ``ModuleList`` of ``num_hidden_layers`` entries; in a layer, the child with "attn" or
"attention" in its name is attention, the other child with linears is the FFN. Where linears are
the layer's own children (OPT's ``fc1`` and ``fc2``), they are the FFN, known by the first's name.
"""

import re
from dataclasses import dataclass

from peft.tuners.tuners_utils import _get_in_out_features
from torch import nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Layout:
    """Where a decoder's FFNs and attention linears are, by module name.

    Attributes:
        stack: Name of the module that holds the decoder layers; empty for the model itself.
        layers: Name of the list of layers.
        ffns: Name of the module to wrap -> names of its linears, in order of definition.
        attention: Names of attention's linears.
    """

    stack: str
    layers: str
    ffns: dict[str, tuple[str, ...]]
    attention: tuple[str, ...]

    def pattern(self, layer_indices: list[int] | None = None) -> str:
        """A regular expression for all targets, as PEFT's ``target_modules`` takes it."""
        indices = r"\d+" if layer_indices is None else "|".join(map(str, layer_indices))
        start = len(self.layers) + 1
        inside = {name[start:].split(".", 1)[1] for name in (*self.ffns, *self.attention)}
        names = "|".join(re.escape(name) for name in sorted(inside))
        return rf"{re.escape(self.layers)}\.(?:{indices})\.(?:{names})"


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: torch's, bitsandbytes', GPT-2's Conv1D, quantised."""
    if isinstance(module, nn.Linear | Conv1D):
        return True
    return "Linear" in type(module).__name__ and not any(True for _ in module.children())


def linear_features(module: nn.Module) -> tuple[int, int]:
    """Input and output features of a linear layer."""
    return _get_in_out_features(module)


def find_layout(model: nn.Module) -> Layout:
    """Finds the targets of a model without adapters.

    Args:
        model: A transformers decoder or VLM, with or without its head.

    Returns:
        Its layout.

    Raises:
        ValueError: If the model has no decoder layers, or a layer has no FFN of linears.
    """
    if not hasattr(model, "get_decoder"):
        raise ValueError(
            f"{type(model).__name__} is not a transformers model: it has no get_decoder(). "
            "MoLE needs a decoder (LlamaForCausalLM, LlavaForConditionalGeneration, ...)."
        )
    decoder = model.get_decoder()
    stack = next(name for name, module in model.named_modules() if module is decoder)
    count = decoder.config.get_text_config().num_hidden_layers
    lists = [
        name
        for name, child in decoder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if len(lists) != 1:
        raise ValueError(
            f"{type(decoder).__name__} has {len(lists)} lists of {count} layers where MoLE expects "
            "one; pass a decoder whose layers are one ModuleList."
        )
    prefix = f"{stack}.{lists[0]}" if stack else lists[0]
    ffns: dict[str, tuple[str, ...]] = {}
    attention: list[str] = []
    for index, layer in enumerate(getattr(decoder, lists[0])):
        name = f"{prefix}.{index}"
        module, linears = _find_ffn(name, layer)
        ffns[module] = linears
        for child_name, child in layer.named_children():
            if _is_attention(child_name, child):
                attention += _linears(f"{name}.{child_name}", child)
    return Layout(stack, prefix, ffns, tuple(attention))


def _is_attention(name: str, module: nn.Module) -> bool:
    return bool(re.search("attn|attention", name, re.IGNORECASE)) and not is_linear(module)


def _linears(name: str, module: nn.Module) -> list[str]:
    return [
        f"{name}.{inner}" if inner else name
        for inner, child in module.named_modules()
        if is_linear(child)
    ]


def _find_ffn(name: str, layer: nn.Module) -> tuple[str, tuple[str, ...]]:
    own = []
    containers = []
    for child_name, child in layer.named_children():
        full = f"{name}.{child_name}"
        if is_linear(child):
            own.append(full)
        elif not _is_attention(child_name, child):
            if any("experts" in inner for inner, _ in child.named_modules()):
                raise ValueError(
                    f"{full} ({type(child).__name__}) is a mixture of experts already; MoLE needs "
                    "decoders with dense FFNs."
                )
            if linears := _linears(full, child):
                containers.append((full, tuple(linears)))
    if not containers and len(own) >= 2:
        return own[0], tuple(own)
    if len(containers) == 1 and len(containers[0][1]) >= 2:
        return containers[0]
    found = ", ".join(module for module, _ in containers) or "none"
    raise ValueError(
        f"{name} ({type(layer).__name__}) should have one FFN of two or more linears; candidates: "
        f"{found}. MoLE cannot tell which module is the FFN of this architecture."
    )
