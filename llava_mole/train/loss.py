"""The training loss: every target token of a global batch weighs the same.

``loss = Σ CE / T* + balance``, with T* the target tokens of all ranks and micro-steps of one
optimizer step. Means of means (per rank, per micro-step) would weigh a token by how many others
happened to share its micro-batch, and make the result depend on the layout.
"""

import torch
import torch.nn.functional as F

IGNORE_INDEX = -100


def summed_cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over the targets that are not ``IGNORE_INDEX``, in float32.

    Args:
        logits: (B, M, V), any floating dtype.
        targets: (B, M) int64, the id that follows each kept position.

    Returns:
        A float32 scalar; 0 with a graph where the micro-batch has no target.
    """
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
