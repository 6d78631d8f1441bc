"""Routing statistics as pure tensor functions: nothing here waits for the device."""

import math

import torch


def tokens_per_expert(
    counts: torch.Tensor, dataset_ids: torch.Tensor, num_datasets: int
) -> torch.Tensor:
    """Tokens per dataset, layer and expert of a micro-batch; adds up over micro-batches and ranks.

    Args:
        counts: ``(N, S, K)`` tokens per layer, sequence and expert.
        dataset_ids: ``(S,)`` int64, dataset of each sequence, 0..M-1.
        num_datasets: M.

    Returns:
        ``(M, N, K)`` in the dtype of ``counts``.
    """
    N, _, K = counts.shape
    totals = counts.new_zeros(num_datasets, N, K)
    return totals.index_add(0, dataset_ids.to(counts.device), counts.transpose(0, 1))


def _shares(tokens: torch.Tensor) -> torch.Tensor:
    return tokens / tokens.sum(-1, keepdim=True).clamp(min=1)


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    return -torch.special.xlogy(shares, shares).sum(-1)


def load_entropy(tokens: torch.Tensor) -> torch.Tensor:
    """Entropy of the load over experts, 0 (one expert takes all) to 1 (even).

    Args:
        tokens: ``(..., K)`` tokens per expert.

    Returns:
        ``(...)``; 1 for a single expert.
    """
    K = tokens.shape[-1]
    if K == 1:
        return torch.ones_like(tokens[..., 0])
    return _entropy(_shares(tokens)) / math.log(K)


def dead_expert_share(tokens: torch.Tensor, threshold: float = 0.0) -> torch.Tensor:
    """Share of experts whose load is at or below a threshold.

    Args:
        tokens: ``(..., K)`` tokens per expert.
        threshold: Share of the tokens, 0..1, at or below which an expert counts as dead.

    Returns:
        ``(...)`` share in 0..1.
    """
    return (_shares(tokens) <= threshold).to(tokens.dtype).mean(-1)


def jensen_shannon(tokens: torch.Tensor) -> torch.Tensor:
    """How differently datasets use the experts of a layer: their loads' Jensen-Shannon divergence.

    Datasets weigh the same whatever their sizes; those without tokens are left out.

    Args:
        tokens: ``(M, N, K)`` tokens per dataset, layer and expert.

    Returns:
        ``(N,)`` in bits: 0 when all datasets have one load, 1 when two share no expert, at most
        ``log2(M)``.
    """
    present = (tokens.sum(-1, keepdim=True) > 0).to(tokens.dtype)  # (M, N, 1)
    weights = present / present.sum(0).clamp(min=1)
    shares = _shares(tokens)
    mixture = (weights * shares).sum(0)
    within = (weights.squeeze(-1) * _entropy(shares)).sum(0)
    bits = (_entropy(mixture) - within) / math.log(2)
    return bits.clamp(min=0)


def summarize_load(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What to log about a window's routing.

    Args:
        tokens: ``(M, N, K)`` tokens per dataset, layer and expert, e.g. a running sum of
            :func:`tokens_per_expert`.

    Returns:
        ``load (N, K)`` shares over all datasets, ``dataset_load (M, N, K)`` shares per dataset,
        ``entropy (N,)``, ``max_load (N,)``, ``dead_experts`` scalar share over all layers, and
        ``jensen_shannon (N,)``.
    """
    total = tokens.sum(0)
    load = _shares(total)
    return {
        "load": load,
        "dataset_load": _shares(tokens),
        "entropy": load_entropy(total),
        "max_load": load.amax(-1),
        "dead_experts": dead_expert_share(total).mean(),
        "jensen_shannon": jensen_shannon(tokens),
    }
