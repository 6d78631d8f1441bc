"""The frozen tower's features of all images, computed once where a config asks for a cache."""

import hashlib

import torch
from torch import nn

from llava_mole.data.build import OpenData, open_data
from llava_mole.data.images.features import FeatureCache, build_feature_cache, distinct_images
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.model.build import build_model
from llava_mole.model.open_clip_tower import OpenClipVisionModel
from llava_mole.model.processor import build_processor
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for
from llava_mole.train.zero_gradient import find_module


def vision_features(
    config: RunConfig,
    model: nn.Module,
    data: OpenData,
    pixels: ProcessorPixels,
    device: torch.device,
) -> FeatureCache | None:
    """The cache that ``data.feature_cache`` names, made if it is not there; None without one.

    Raises:
        ValueError: the tower cannot take features instead of pixels.
    """
    if config.data.feature_cache is None:
        return None
    tower = find_module(model, "vision_tower")
    if not isinstance(tower, OpenClipVisionModel):
        raise ValueError(
            "data.feature_cache needs an open_clip vision tower; set it to null, or take the "
            "tower from open_clip."
        )
    tower = tower.to(device)
    layer = config.model.vision_feature_layer

    @torch.no_grad()
    def features(images: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W) to (n, P, width): the hidden state that the projector reads."""
        return tower(images.to(device), output_hidden_states=layer).hidden_states[layer]

    return build_feature_cache(
        config.data.feature_cache,
        distinct_images((*data.sets, *data.eval_sets)),
        pixels,
        features,
        _made_with(tower, pixels, layer),
    )


def cache_features(config: RunConfig) -> None:
    """Makes the cache that ``data.feature_cache`` names, if it is not there, before any training.

    Raises:
        ValueError: as `vision_features`.
    """
    processor = build_processor(config.model)
    data = open_data(config.data, encoder_for(config.model, processor), config.seed)
    pixels = ProcessorPixels(processor.image_processor)
    vision_features(config, build_model(config.model), data, pixels, torch.device("cpu"))


def _made_with(tower: nn.Module, pixels: ProcessorPixels, layer: int) -> dict:
    """Everything that decides a feature: the tower's weights, the layer and the pixels."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "tower": digest.hexdigest(),
        "layer": layer,
        "processor": pixels.image_processor.to_dict(),
    }
