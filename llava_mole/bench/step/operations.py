"""Floating-point operations that one training sample needs, counted on the model, weight by weight.

Model operations, as for MFU (model FLOP utilisation): what the mathematics needs, whatever the
implementation does beside it. Forward and the backward to activations (dgrad) of frozen weights,
these and the backward to weights (wgrad) of trained ones; causal attention between the tokens of a
sample only; logits at supervised positions only; the frozen tower forward only, up to the layer
that is read. Padding and what checkpointing computes again are not among them. Norms, activations,
softmax and embeddings, which are no matrix products, are left out.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from llava_mole.model.freeze import part_of
from llava_mole.train.config import AdapterConfig
from llava_mole.train.zero_gradient import find_module


@dataclass(frozen=True)
class Operations:
    """Operations of a training step by what causes them.

    Attributes:
        token: a token in the decoder layers: frozen linears, adapter, routers.
        pair: a pair of tokens of a sample of which one attends to the other, all layers.
        target: logits at a supervised position.
        tower: an image in the frozen vision tower.
        projector: an image in the trained projector.
    """

    token: int
    pair: int
    target: int
    tower: int
    projector: int

    def of(
        self,
        lengths: np.ndarray,
        targets: np.ndarray,
        num_images: np.ndarray,
        tower: bool = True,
        causal: bool = True,
    ) -> np.ndarray:
        """Operations of each sample, (n,) float64.

        Args:
            lengths: tokens, (n,).
            targets: supervised positions, (n,).
            num_images: images, (n,).
            tower: whether images go through the vision tower; not with cached features.
            causal: half of all pairs, and not all of them, as an implementation may compute.
        """
        lengths = np.asarray(lengths, dtype=np.float64)
        pairs = lengths * (lengths + 1) / 2 if causal else lengths**2
        image = self.projector + (self.tower if tower else 0)
        return (
            self.token * lengths
            + self.pair * pairs
            + self.target * np.asarray(targets, dtype=np.float64)
            + image * np.asarray(num_images, dtype=np.float64)
        )


def operations_of(model: nn.Module, adapter: AdapterConfig) -> Operations:
    """Counts on a LLaVA with its adapter attached, which may be on the meta device.

    Args:
        model: as `attach` returns it.
        adapter: says how many of the experts a token meets.
    """
    config = find_module(model, "language_model", parent=True).config
    text = config.text_config
    weights: Counter[str] = Counter()
    outside = ("embed_tokens", "lm_head")
    for name, weight in model.named_parameters():
        matrix = weight.ndim >= 2 and not any(part in name for part in outside)
        if matrix and ".original_module." not in name:
            weights[part_of(name)] += weight.numel()
    experts = weights["experts"]
    if adapter.type == "mole" and adapter.routing == "top1":
        experts //= adapter.num_experts
    trained = weights["lora"] + experts + weights["router"]
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    head = model.get_output_embeddings().weight
    return Operations(
        # 2 a weight forward and 2 for each of dgrad and wgrad.
        token=4 * weights["language_model"] + 6 * trained,
        # Scores and their product with the values: 4 a pair and channel, twice that backward.
        pair=12 * heads * head_dim * text.num_hidden_layers,
        target=4 * head.numel(),
        tower=_tower(model, config.vision_feature_layer),
        projector=_projector(model) * config.image_seq_length,
    )


def _projector(model: nn.Module) -> int:
    """Operations a token; its first linear needs no gradient of its input, which is frozen."""
    linears = [
        module
        for name, module in find_module(model, "multi_modal_projector").named_modules()
        if isinstance(module, nn.Linear) and "original_module" not in name
    ]
    return sum((4 if i == 0 else 6) * linear.weight.numel() for i, linear in enumerate(linears))


def _tower(model: nn.Module, layer: int) -> int:
    """Operations of one image, by running the tower's shapes."""
    tower = find_module(model, "vision_tower")
    # On meta attention is counted as what it is; torch has no count of the CPU's fused one.
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes = type(tower)(tower.config).eval()
        side = tower.config.image_size
        shapes(torch.empty(1, 3, side, side), output_hidden_states=layer)
    return counter.get_total_flops()
