"""What a router reads that sends a whole sequence by its image: one vector per sequence."""

import torch
from torch.nn import functional as F

from llava_mole.mole.balance import sum_by_sequence


def pool_images(
    embeddings: torch.Tensor, is_image: torch.Tensor, ids: torch.Tensor, num_sequences: int
) -> torch.Tensor:
    """The mean of each sequence's image tokens as they enter the decoder, at RMS 1.

    A sequence without an image has its first token instead, the same for all of them, so that
    neither case looks at what comes after the prompt: an answer that is being generated can't
    change where its sequence goes.

    Args:
        embeddings: ``(T, D)``, the decoder's input.
        is_image: ``(T,)`` bool.
        ids: ``(T,)`` int64, sequence of each token, -1 on padding.
        num_sequences: S.

    Returns:
        ``(S, D)`` in at least float32, differentiable with respect to ``embeddings``; zeros for a
        sequence without tokens. RMS 1 is about what an FFN's norm gives its tokens' router, so that
        both learn at the same rate.
    """
    T, device = len(ids), ids.device
    is_image = is_image & (ids >= 0)
    images = sum_by_sequence(is_image[:, None].int(), ids, num_sequences)[:, 0]
    slots = torch.where(ids < 0, num_sequences, ids)
    first = torch.full((num_sequences + 1,), T, device=device)
    first = first.scatter_reduce(0, slots, torch.arange(T, device=device), "amin")
    is_first = torch.arange(T, device=device) == first[slots]
    has_image = F.pad(images, (0, 1))[slots] > 0
    read = (ids >= 0) & torch.where(has_image, is_image, is_first)
    exact = torch.promote_types(embeddings.dtype, torch.float32)
    with torch.autocast(embeddings.device.type, enabled=False):
        total = sum_by_sequence(embeddings.to(exact) * read[:, None], ids, num_sequences)
        return F.rms_norm(total / images.clamp(min=1)[:, None], total.shape[-1:], eps=1e-12)
