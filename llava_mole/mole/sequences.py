"""Which sequence a token belongs to: a row of the batch, or a segment of a packed row."""

import torch


def sequence_layout(
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    shape: tuple[int, int],
    device: torch.device | str,
    past: int = 0,
) -> tuple[torch.Tensor, int]:
    """Numbers the sequences of a micro-batch.

    A mask decides first. In a 2-D one each row is a sequence, its masked tokens belong to none. In
    a 4-D one, as transformers prepares it, padding does not attend to itself, and the first token
    of a sequence, also of a packed one, to nothing in front of it. Without a mask,
    ``position_ids`` that start again at zero inside a row mark packed segments. Otherwise each row
    is a sequence.

    Args:
        attention_mask: ``(B, >=L)``, nonzero on real tokens; with a key-value cache it covers the
            past too and its last L columns are these tokens. Or ``(B or 1, H, L, >=past + L)``,
            bool or added to the scores. Other ranks are ignored.
        position_ids: ``(B or 1, L)``; other shapes are ignored.
        shape: ``(B, L)``.
        device: Where the tokens are.
        past: Tokens of each row that are in the cache already; for a 4-D mask.

    Returns:
        ``(B, L)`` int64 ids 0..S-1 with -1 on padding, and S. S is B except for packed rows; to
        tell costs one wait for the device (per forward, not per layer), with 4-D masks too.
    """
    B, L = shape
    rows = torch.arange(B, device=device)[:, None].expand(B, L)
    if attention_mask is not None and attention_mask.ndim == 2 and attention_mask.shape[1] >= L:
        real = attention_mask[:, attention_mask.shape[1] - L :].to(device) != 0
        return rows.masked_fill(~real, -1), B
    if attention_mask is not None and attention_mask.ndim == 4 and L > 1:
        return _of_prepared(attention_mask.to(device), rows, past)
    if attention_mask is not None or position_ids is None:
        return rows, B
    if position_ids.ndim != 2 or position_ids.shape[1] != L or position_ids.shape[0] not in (1, B):
        return rows, B
    starts = (position_ids.to(device) == 0).expand(B, L).clone()
    starts[:, 0] = True
    return _numbered(starts)


def _numbered(starts: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The sequences that begin where ``starts (B, L)`` says, and their number."""
    ids = starts.flatten().cumsum(0).view(starts.shape) - 1
    return ids, int(ids[-1, -1]) + 1


def _of_prepared(mask: torch.Tensor, rows: torch.Tensor, past: int) -> tuple[torch.Tensor, int]:
    """Sequences by what a 4-D mask lets tokens attend to."""
    B, L = rows.shape
    if mask.shape[0] not in (1, B) or mask.shape[2] != L or mask.shape[3] < past + L:
        return rows, B
    # Bool, or what is added to a score: 0, and next to the lowest number where it doesn't count.
    lowest = torch.finfo(mask.dtype).min / 2 if mask.dtype.is_floating_point else 0
    attends = mask[:, 0] > lowest
    attends = attends.expand(B, -1, -1)
    real = attends.diagonal(past, 1, 2)[:, :L]
    if past:
        return rows.masked_fill(~real, -1), B  # its sequences began in the cache
    starts = real & ~attends[..., :L].tril(-1).any(-1)
    starts[:, 0] |= ~real.any(1)  # a row of padding alone is a sequence, without tokens
    ids, S = _numbered(starts)
    return ids.masked_fill(~real, -1), S


def sequence_ids(
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    shape: tuple[int, int],
    device: torch.device | str,
    past: int = 0,
) -> torch.Tensor:
    """The ids ``(B, L)`` of :func:`sequence_layout`, without their number."""
    return sequence_layout(attention_mask, position_ids, shape, device, past)[0]
