"""Where the images of a forward are, for routers that send a whole sequence by its image.

The decoder gets embeddings, in which an image's tokens look like any other; the model around it
still has the ids. What was pooled stays with the key-value cache, whose later steps see no image.
"""

import inspect
from typing import Any, NamedTuple

import torch
from torch import nn

from llava_mole.mole import pool_images, sum_by_sequence

_ON_CACHE = "mole_images"


def image_tokens_of(model: nn.Module) -> tuple[int, ...]:
    """The ids of a model's image and video tokens; empty if it reads neither."""
    config = getattr(model, "config", None)
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    ids = (getattr(config, name, None) for name in names)
    return tuple(dict.fromkeys(id for id in ids if id is not None))


def named_arguments(module: nn.Module, args: tuple, kwargs: dict) -> dict[str, Any]:
    """A call's arguments by name, as a forward pre-hook gets them."""
    if not args:
        return kwargs
    names = inspect.signature(module.forward).parameters
    return {**dict(zip(names, args, strict=False)), **kwargs}


def select_images(cache: object, rows: torch.Tensor) -> None:
    """Follows ``cache.batch_select_indices(rows)`` with what the routers read of its sequences.

    Needed by whoever reorders a cache's rows across images; generation reorders within one.

    Args:
        cache: a key-value cache that a model with a MoLE adapter has filled, or another.
        rows: ``(B,)`` int64, old row of each new one.
    """
    pooled = getattr(cache, _ON_CACHE, None)
    if pooled is not None:
        setattr(cache, _ON_CACHE, pooled.of(rows))


class Pooled(NamedTuple):
    """What routers read of S sequences, as it stays with a cache.

    Attributes:
        images: ``(S, D)``, see `llava_mole.mole.pool_images`.
        begun: ``(S,)`` bool, whether the sequence had tokens, or was padding so far.
    """

    images: torch.Tensor
    begun: torch.Tensor

    def of(self, rows: torch.Tensor) -> "Pooled":
        """The same of some rows."""
        return Pooled(*(tensor[rows.to(tensor.device)] for tensor in self))


class ImageFinder:
    """Sees the ids that enter a model and pools what its images became in front of the decoder.

    Args:
        image_tokens: ids of image and video tokens.
    """

    def __init__(self, image_tokens: tuple[int, ...]):
        self.image_tokens = image_tokens
        self._ids: torch.Tensor | None = None

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pre-hook of the whole model."""
        self._ids = named_arguments(module, args, kwargs).get("input_ids")

    def take_ids(self) -> torch.Tensor | None:
        """The ids of this forward, if the model was called with some; they are kept no longer."""
        ids, self._ids = self._ids, None
        return ids

    def pooled(
        self,
        token_ids: torch.Tensor | None,
        embeddings: torch.Tensor | None,
        layout: tuple[torch.Tensor, int],
        cache: object,
    ) -> Pooled:
        """What routers read of the sequences.

        Args:
            token_ids: ``(B, L)``, what the model was called with.
            embeddings: ``(B, L, D)``, what the decoder is called with.
            layout: `llava_mole.mole.sequence_layout`.
            cache: the decoder's key-value cache or None. Where it holds tokens already, what was
                read of their sequences then holds for these too.

        Raises:
            LookupError: if that is not known; says why, and what to do.
        """
        ids, num_sequences = layout
        is_image = None
        if token_ids is not None and token_ids.shape == ids.shape:
            is_image = torch.zeros_like(token_ids, dtype=torch.bool)
            for image_token in self.image_tokens:
                is_image |= token_ids == image_token
            is_image = is_image.to(ids.device) & (ids >= 0)
        if cache is not None and cache.get_seq_length() > 0:
            return _go_on(getattr(cache, _ON_CACHE, None), is_image, layout)
        if is_image is None:
            raise LookupError(
                "the routers find an image by its tokens; call the whole model, with input_ids "
                "(and pixel_values), not with inputs_embeds alone"
            )
        if embeddings is None:
            raise LookupError("this model's decoder reads ids, its images enter elsewhere")
        flat, ids = embeddings.flatten(0, 1), ids.flatten()
        images = pool_images(flat, is_image.flatten(), ids, num_sequences)
        real = (ids >= 0)[:, None].int()
        return Pooled(images, sum_by_sequence(real, ids, num_sequences)[:, 0] > 0)

    @staticmethod
    def keep(pooled: Pooled, output: object) -> None:
        """Leaves what was pooled with the cache that the decoder returns, if it returns one."""
        cache = getattr(output, "past_key_values", None)
        if cache is not None:
            setattr(cache, _ON_CACHE, Pooled(pooled.images.detach(), pooled.begun))


def _go_on(
    pooled: Pooled | None, is_image: torch.Tensor | None, layout: tuple[torch.Tensor, int]
) -> Pooled:
    """What a cache has of its sequences' images, if these tokens change nothing about it."""
    ids, num_sequences = layout
    if pooled is None or len(pooled.images) != num_sequences:
        raise LookupError(
            "the key-value cache does not say where the images of its "
            f"{num_sequences} sequences send them; begin with an empty cache, and follow "
            "cache.batch_select_indices(rows) with llava_mole.tuner.select_images(cache, rows)"
        )
    late = (ids >= 0) & ~pooled.begun.to(ids.device)[ids.clamp(min=0)]
    if is_image is not None:
        late |= is_image
    # Not asked at a step of an answer, which would wait for the device, and may be any token.
    if ids.shape[1] > 1 and late.any():
        raise LookupError(
            "a sequence's experts are chosen when its first tokens are read, and here the cache "
            "holds some already; give image and prompt in one piece (no prefill_chunk_size), or "
            "begin with an empty cache"
        )
    if pooled.images.is_inference() and torch.is_grad_enabled():
        # What inference mode made can't take part in a graph.
        return Pooled(pooled.images.clone(), pooled.begun)
    return pooled
