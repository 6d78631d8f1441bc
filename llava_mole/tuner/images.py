"""Where the images of a forward are, for routers that send a whole sequence by its image.

The decoder gets embeddings, in which an image's tokens look like any other; the model around it
still has the ids. What was pooled stays with the key-value cache, whose later steps see no image.
"""

import inspect
from typing import Any

import torch
from torch import nn

from llava_mole.mole import pool_images

_ON_CACHE = "mole_images"


def image_token_of(model: nn.Module) -> int | None:
    """The id of a model's image token; None if it reads no images."""
    config = getattr(model, "config", None)
    return getattr(config, "image_token_id", getattr(config, "image_token_index", None))


def named_arguments(module: nn.Module, args: tuple, kwargs: dict) -> dict[str, Any]:
    """A call's arguments by name, as a forward pre-hook gets them."""
    if not args:
        return kwargs
    names = inspect.signature(module.forward).parameters
    return {**dict(zip(names, args, strict=False)), **kwargs}


def select_images(cache: object, rows: torch.Tensor) -> None:
    """Follows ``cache.batch_select_indices(rows)`` with what the routers read of its sequences.

    Args:
        cache: a key-value cache that a model with a MoLE adapter has filled, or another.
        rows: ``(B,)`` int64, old row of each new one.
    """
    pooled = getattr(cache, _ON_CACHE, None)
    if pooled is not None:
        setattr(cache, _ON_CACHE, pooled[rows.to(pooled.device)])


class ImageFinder:
    """Sees the ids that enter a model and pools what its images became in front of the decoder."""

    def __init__(self, image_token: int | None):
        self.image_token = image_token
        self.ids: torch.Tensor | None = None

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook of the whole model."""
        self.ids = named_arguments(module, args, kwargs).get("input_ids")

    def pooled(
        self, embeddings: torch.Tensor, ids: torch.Tensor, num_sequences: int, cache: object
    ) -> torch.Tensor | ValueError:
        """What routers read of the sequences ``(S, D)``, see `llava_mole.mole.pool_images`.

        Args:
            embeddings: ``(B, L, D)``, the decoder's input.
            ids: ``(B, L)``, the sequences.
            num_sequences: S.
            cache: the decoder's key-value cache or None. Where it holds tokens already, their
                sequences' images decide, and none that comes later.

        Returns:
            It, or the error for whoever asks for it, which with its adapter disabled nobody does:
            the model was called without ``input_ids``, or goes on from a cache that it did not
            fill.
        """
        token_ids, self.ids = self.ids, None
        if cache is not None and cache.get_seq_length() > 0:
            pooled = getattr(cache, _ON_CACHE, None)
            if pooled is None or len(pooled) != num_sequences:
                return ValueError(
                    "route_by_image: the key-value cache does not say where the images of its "
                    f"{num_sequences} sequences send them; begin with an empty cache and the "
                    "adapter enabled, and follow cache.batch_select_indices(rows) with "
                    "llava_mole.tuner.select_images(cache, rows)."
                )
            return pooled.to(embeddings.device)
        if token_ids is None or token_ids.shape != ids.shape:
            return ValueError(
                "route_by_image: the routers find an image by its tokens; call the model with "
                "input_ids (and pixel_values), not with inputs_embeds alone."
            )
        is_image = (token_ids == self.image_token).to(embeddings.device)
        embeddings = embeddings.flatten(0, 1)
        return pool_images(embeddings, is_image.flatten(), ids.flatten(), num_sequences)

    @staticmethod
    def keep(pooled: object, output: object) -> None:
        """Leaves what was pooled with the cache that the decoder returns, if it returns one."""
        cache = getattr(output, "past_key_values", None)
        if cache is not None and isinstance(pooled, torch.Tensor):
            setattr(cache, _ON_CACHE, pooled.detach())
