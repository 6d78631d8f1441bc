"""What a router reads that sends a whole sequence by its image: one vector per sequence."""

import torch
from torch.nn import functional as F


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
        ``(S, D)`` in at least float32, summed in the dtype of ``embeddings`` and differentiable
        with respect to them; zeros for a sequence without tokens. RMS 1 is about what an FFN's norm
        gives its tokens' router, so that both learn at the same rate.
    """
    own = ids == torch.arange(num_sequences, device=ids.device)[:, None]  # (S, T)
    images, first = own & is_image, own & (own.cumsum(dim=1) == 1)
    read = torch.where(images.any(dim=1, keepdim=True), images, first)
    exact = torch.promote_types(embeddings.dtype, torch.float32)
    with torch.autocast(embeddings.device.type, enabled=False):
        # A product, as no (T, D) is made for it and no order of additions changes its last bits.
        share = read / read.sum(dim=1, keepdim=True).clamp(min=1)
        mean = (share.to(embeddings.dtype) @ embeddings).to(exact)
        return F.rms_norm(mean, mean.shape[-1:], eps=1e-12)
