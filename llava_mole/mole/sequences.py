"""Which sequence a token belongs to: a row of the batch, or a segment of a packed row."""

import torch


def sequence_layout(
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    shape: tuple[int, int],
    device: torch.device | str,
) -> tuple[torch.Tensor, int]:
    """Numbers the sequences of a micro-batch.

    A 2-D mask decides first: each row is a sequence, its masked tokens belong to none. Without one,
    ``position_ids`` that start again at zero inside a row mark packed segments. Otherwise each row
    is a sequence.

    Args:
        attention_mask: ``(B, >=L)``, nonzero on real tokens; with a key-value cache it covers the
            past too and its last L columns are these tokens. Other ranks are ignored.
        position_ids: ``(B or 1, L)``; other shapes are ignored.
        shape: ``(B, L)``.
        device: Where the tokens are.

    Returns:
        ``(B, L)`` int64 ids 0..S-1 with -1 on padding, and S. S is B except for packed rows, where
        it costs one wait for the device (per forward, not per layer).
    """
    B, L = shape
    rows = torch.arange(B, device=device)[:, None].expand(B, L)
    if attention_mask is not None and attention_mask.ndim == 2 and attention_mask.shape[1] >= L:
        real = attention_mask[:, attention_mask.shape[1] - L :].to(device) != 0
        return rows.masked_fill(~real, -1), B
    if attention_mask is not None or position_ids is None:
        return rows, B
    if position_ids.ndim != 2 or position_ids.shape[1] != L or position_ids.shape[0] not in (1, B):
        return rows, B
    starts = (position_ids.to(device) == 0).expand(B, L).clone()
    starts[:, 0] = True
    ids = starts.flatten().cumsum(0).view(B, L) - 1
    return ids, int(ids[-1, -1]) + 1


def sequence_ids(
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    shape: tuple[int, int],
    device: torch.device | str,
) -> torch.Tensor:
    """The ids ``(B, L)`` of :func:`sequence_layout`, without their number."""
    return sequence_layout(attention_mask, position_ids, shape, device)[0]
