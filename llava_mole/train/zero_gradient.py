"""A zero gradient, not none, for the projector in a micro-batch without images.

With no gradient at all AdamW would skip the projector on one rank and not on another, DDP would
wait for it for ever, and ZeRO-3 ranks would gather different parameters. So where no image goes
through the projector, zeros do, and their output enters the text embeddings times 0.
"""

import torch
from torch import nn


class ProjectorAlwaysTakesPart:
    """Hooks on a LLaVA's projector and decoder stack; `remove` takes them off again."""

    def __init__(self, model: nn.Module, through_tower: bool = False):
        """Installs the hooks.

        Args:
            model: a LLaVA, wrapped by PEFT or not.
            through_tower: run the zeros through the vision tower as well, so that all ranks
                gather the same parameters in the same order (ZeRO-3).
        """
        self._projector = find_module(model, "multi_modal_projector")
        self._llava = find_module(model, "language_model", parent=True)
        self._through_tower = through_tower
        self._trained = any(p.requires_grad for p in self._projector.parameters())
        self._used = False
        self._handles = [
            self._projector.register_forward_pre_hook(self._mark),
            self._llava.language_model.register_forward_pre_hook(self._join, with_kwargs=True),
        ]

    def remove(self) -> None:
        """Takes the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _mark(self, module, args):
        self._used = True

    def _join(self, module, args, kwargs):
        used, self._used = self._used, False
        # Under ZeRO-3 without gradients too: a rank that gathers nothing leaves the others waiting.
        learns = self._trained and torch.is_grad_enabled()
        if used or not (self._through_tower or learns):
            return None
        embeddings = kwargs["inputs_embeds"]
        kwargs["inputs_embeds"] = embeddings + 0.0 * self._projected_zeros().to(embeddings.dtype)
        self._used = False
        return args, kwargs

    def _projected_zeros(self) -> torch.Tensor:
        weight = next(self._projector.parameters())
        config = self._llava.config.vision_config
        if self._through_tower:
            side = config.image_size
            pixels = weight.new_zeros(1, 3, side, side)
            return torch.cat(list(self._llava.get_image_features(pixels).pooler_output)).sum()
        return self._projector(weight.new_zeros(1, 1, config.hidden_size)).sum()


def find_module(model: nn.Module, name: str, parent: bool = False) -> nn.Module:
    """The first submodule called ``name``, at any depth, or the module that holds it."""
    for path, module in model.named_modules():
        if path.split(".")[-1] == name:
            return model.get_submodule(path.rpartition(".")[0]) if parent else module
    raise ValueError(f"{type(model).__name__} has no {name}: it is not a LLaVA.")
