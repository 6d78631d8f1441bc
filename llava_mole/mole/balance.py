"""The load-balancing loss (LLaVA-MoLE, Eq. 7-8), its normalisations and its scopes."""

import torch
from torch import distributed

BALANCE_NORMS = ("paper", "switch", "authors")
BALANCE_SCOPES = ("sequence", "micro_batch", "global_batch")


def sum_by_sequence(values: torch.Tensor, ids: torch.Tensor, num_sequences: int) -> torch.Tensor:
    """Sums token values per sequence, leaving padding out.

    Args:
        values: ``(T, K)``.
        ids: ``(T,)`` int64, sequence of each token, -1 on padding.
        num_sequences: S.

    Returns:
        ``(S, K)`` in the dtype of ``values``, differentiable with respect to them.
    """
    slots = torch.where(ids < 0, num_sequences, ids)
    sums = values.new_zeros(num_sequences + 1, values.shape[-1])
    return sums.index_add(0, slots, values)[:num_sequences]


class GlobalCounts:
    """Tokens per expert over all ranks and the micro-steps so far of one optimizer step.

    The micro-batch balance loss measures the load on a few sequences and forbids each of them to
    prefer an expert. Measured over the global batch it only asks that the experts be used evenly
    overall (Qiu et al., "Demons in the Detail", arXiv 2501.11873, whose buffer this is). No
    gradient flows through the counts, so nothing but the counts is exchanged.
    """

    def __init__(self):
        self.counts: torch.Tensor | None = None

    def add(self, counts: torch.Tensor) -> torch.Tensor:
        """Adds one micro-step's ``(N, K)`` counts; returns the ``(N, K)`` total of the step so far.

        With ``torch.distributed`` initialised this is a collective call: every rank must make it.
        """
        counts = counts.detach().clone()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(counts)
        self.counts = counts if self.counts is None else self.counts + counts
        return self.counts

    def reset(self) -> None:
        """Forgets the counts; call it once per optimizer step."""
        self.counts = None


def balance_loss(
    counts: torch.Tensor,
    probs: torch.Tensor,
    lengths: torch.Tensor,
    norm: str = "switch",
    scope: str = "sequence",
    global_counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """The load-balancing loss, before its coefficient.

    With ``c_j`` the tokens that chose expert j, ``P_j`` its summed probability (Eq. 8) and L the
    number of tokens, all over one X:

    - ``paper``: ``sum_j c_j P_j`` as printed in Eq. 7. It grows with L^2/K, so with the printed
      coefficient 1e-2 it drowns the language loss; kept by name, never the default.
    - ``switch``: ``K sum_j (c_j/L)(P_j/L)`` (Switch Transformer, Eq. 4-6); 1 when balanced.
    - ``authors``: ``sum_j mean_n(c_j/L) mean_n(P_j/L)``, the means over layers taken before the
      product and no factor K.

    ``paper`` and ``switch`` are averaged over layers, as Sec. 3.4 says.

    Args:
        counts: ``(N, S, K)`` tokens per layer, sequence and expert; takes no gradient.
        probs: ``(N, S, K)`` summed probabilities.
        lengths: ``(S,)`` tokens per sequence, padding excluded. Empty sequences add nothing.
        norm: ``"paper"``, ``"switch"`` or ``"authors"``.
        scope: What X is in Eq. 6-8. ``"sequence"``: each sequence, the result being the **sum**
            over sequences, so that it adds up over micro-batches and ranks; the caller divides by
            the number of sequences. ``"micro_batch"``: all tokens together. ``"global_batch"``: as
            micro_batch, with the loads c_j/L taken from ``global_counts``.
        global_counts: ``(N, K)`` counts of the global batch, for ``"global_batch"`` only.

    Returns:
        Scalar, in the dtype of ``probs``.

    Raises:
        ValueError: If ``norm`` or ``scope`` is unknown.
    """
    if norm not in BALANCE_NORMS:
        raise ValueError(f"balance_norm={norm!r} is unknown; use one of {BALANCE_NORMS}.")
    if scope not in BALANCE_SCOPES:
        raise ValueError(f"balance_scope={scope!r} is unknown; use one of {BALANCE_SCOPES}.")
    counts = counts.detach().to(probs.dtype)
    lengths = lengths.to(probs.dtype)
    if scope != "sequence":
        counts, probs = counts.sum(1, keepdim=True), probs.sum(1, keepdim=True)
        lengths = lengths.sum(0, keepdim=True)
    if scope == "global_batch":
        assert global_counts is not None, "global_batch scope needs the global counts"
        load = global_counts / global_counts.sum(-1, keepdim=True).clamp(min=1)
        counts = load.to(probs.dtype)[:, None] * lengths[:, None]

    if norm == "paper":
        return (counts * probs).sum(dim=(1, 2)).mean()
    tokens = lengths.clamp(min=1)[:, None]  # an empty sequence has 0 counts: 0/1, not 0/0
    load, mean_probs = counts / tokens, probs / tokens
    if norm == "switch":
        return (load * mean_probs).sum(dim=(1, 2)).mean() * probs.shape[-1]
    return (load.mean(0) * mean_probs.mean(0)).sum()
