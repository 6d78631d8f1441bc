"""What routers read of a batch's images, and how it stays with the key-value cache.

The steps of an answer see no image any more; where their sequences go was chosen before.
"""

from typing import NamedTuple

import torch

_ON_CACHE = "mole_images"


class Pooled(NamedTuple):
    """What routers read of S sequences.

    Attributes:
        images: ``(S, D)``, see `llava_mole.mole.pool_images`.
        begun: ``(S,)`` bool, whether the sequence had tokens, or was padding so far.
    """

    images: torch.Tensor
    begun: torch.Tensor


def select_images(cache: object, rows: torch.Tensor) -> None:
    """Follows ``cache.batch_select_indices(rows)`` with what the routers read of its sequences.

    Needed by whoever reorders a cache's rows across images; generation reorders within one.

    Args:
        cache: a key-value cache that a model with a MoLE adapter has filled, or another.
        rows: ``(B,)`` int64, old row of each new one.
    """
    pooled = getattr(cache, _ON_CACHE, None)
    if pooled is not None:
        selected = Pooled(*(tensor[rows.to(tensor.device)] for tensor in pooled))
        setattr(cache, _ON_CACHE, selected)


def keep(pooled: Pooled, cache: object) -> None:
    """Leaves what was pooled with the cache that its forward filled; with None, nowhere."""
    if cache is not None:
        setattr(cache, _ON_CACHE, Pooled(pooled.images.detach(), pooled.begun))


def go_on(
    cache: object, ids: torch.Tensor, num_sequences: int, is_image: torch.Tensor | None
) -> Pooled:
    """What a cache has of its sequences' images, if the tokens that follow change nothing about it.

    Args:
        cache: the decoder's, not empty.
        ids: ``(B, L)`` int64, sequence of each token, -1 on padding.
        num_sequences: S.
        is_image: ``(B, L)`` bool, or None where it is not known.

    Raises:
        LookupError: if it has nothing of these sequences, or they only begin, or bring an image.
    """
    pooled = getattr(cache, _ON_CACHE, None)
    if pooled is None or len(pooled.images) != num_sequences:
        raise LookupError(
            "the key-value cache does not say where the images of its "
            f"{num_sequences} sequences send them; begin with an empty cache, and follow "
            "cache.batch_select_indices(rows) with llava_mole.tuner.select_images(cache, rows)"
        )
    # Not asked at a step of an answer, which would wait for the device, and may be any token.
    if ids.shape[1] > 1:
        late = (ids >= 0) & ~pooled.begun.to(ids.device)[ids.clamp(min=0)]
        if is_image is not None:
            late |= is_image
        if late.any():
            raise LookupError(
                "a sequence's experts are chosen when its first tokens are read, and here the "
                "cache holds some already; give image and prompt in one piece (no "
                "prefill_chunk_size), or begin with an empty cache"
            )
    if pooled.images.is_inference() and torch.is_grad_enabled():
        # What inference mode made can't take part in a graph.
        return Pooled(pooled.images.clone(), pooled.begun)
    return pooled
