"""Attention over packed rows, one sample after the other.

transformers' SDPA keeps the samples of a packed row apart by a mask of the whole row, T x T, and
pays for all of it. Here each sample is a causal attention of its own, as in flash attention's
``varlen`` functions: of S equal samples in a row of T tokens, T * T / S products.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_varlen"
# Decoders whose mask is causal and nothing else, so that leaving it out loses nothing.
_CAUSAL = ("llama", "mistral", "qwen2", "qwen3")


def attend_by_sample(model: PreTrainedModel) -> bool:
    """Lets a LLaVA's decoder attend to packed rows sample by sample, where it uses SDPA.

    Rows that are not packed, and generation, stay as they are.

    Args:
        model: a LLaVA before it is wrapped.

    Returns:
        Whether it does now; not with another attention, nor with a sliding window.
    """
    config = model.get_decoder().config
    windows = getattr(config, "layer_types", None) or ["full_attention"]
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if (
        config._attn_implementation != "sdpa"
        or config.model_type not in _CAUSAL
        or window
        or set(windows) != {"full_attention"}
    ):
        return False
    AttentionInterface.register(NAME, varlen_attention)
    AttentionMaskInterface.register(NAME, varlen_mask)
    config._attn_implementation = NAME
    return True


def varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface; see `AttentionInterface`.

    Args:
        module: the attention layer.
        query: (B, heads, T, head_dim).
        key: (B, key-value heads, K, head_dim).
        value: as ``key``.
        attention_mask: of rows that are not packed.
        position_ids: (1, T) int64, anew from 0 in each sample; read where ``cu_seq_lens_q`` is
            missing.
        cu_seq_lens_q: (S + 1,) int32, where samples begin, and T; on a GPU it is waited for in the
            first layer alone.
        kwargs: handed on.

    Returns:
        (B, T, heads, head_dim), and None for the weights.
    """
    bounds = None
    if attention_mask is None and query.shape[0] == 1 and query.shape[2] == key.shape[2]:
        bounds = _bounds(position_ids, cu_seq_lens_q)
    if bounds is None or len(bounds) == 2:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    parts = [
        sdpa_attention_forward(
            module,
            query[:, :, begin:end],
            key[:, :, begin:end],
            value[:, :, begin:end],
            None,
            **kwargs,
        )[0]
        for begin, end in pairwise(bounds)
    ]
    return torch.cat(parts, dim=1), None


def varlen_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """No mask for a single row without padding, of which `varlen_attention` finds the samples."""
    if attention_mask is None and batch_size == 1 and q_length == kv_length:
        return None
    return sdpa_mask(batch_size, q_length, kv_length, attention_mask=attention_mask, **kwargs)


def _bounds(
    position_ids: torch.Tensor | None, cu_seq_lens: torch.Tensor | None
) -> list[int] | None:
    if cu_seq_lens is None:
        if position_ids is None:
            return None
        # As transformers tells them for its mask.
        row = position_ids.flatten()
        starts = (row.diff() != 1).nonzero().flatten() + 1
        return [0, *starts.tolist(), len(row)]
    # Kept beside the tensor: each layer asks, and asking a GPU waits for it.
    if not hasattr(cu_seq_lens, "bounds"):
        cu_seq_lens.bounds = cu_seq_lens.tolist()
    return cu_seq_lens.bounds
