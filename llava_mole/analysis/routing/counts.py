"""Tokens per layer, sequence, kind of token and expert, and the shares that follow from them.

Legend: N MoLE layers, S sequences, K experts; kinds are those of `samples.KINDS`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava_mole.analysis.routing.choices import choices_of, experts_of, layers_of
from llava_mole.analysis.routing.samples import KINDS


@dataclass(frozen=True)
class Counts:
    """How one data set's tokens were routed.

    Attributes:
        layers: the N decoder layers that have experts.
        tokens: (N, S, 3, K) int64, by layer, sequence, kind and expert.
    """

    layers: tuple[int, ...]
    tokens: torch.Tensor

    @property
    def sequences(self) -> torch.Tensor:
        """(N, S, K) int64, tokens of every kind together."""
        return self.tokens.sum(2)

    @property
    def mean(self) -> torch.Tensor:
        """(N, K) float64, each expert's share of a sequence's tokens, mean over sequences."""
        return self._shares.mean(1)

    @property
    def std(self) -> torch.Tensor:
        """(N, K) float64, its standard deviation over sequences."""
        return self._shares.std(1, correction=0)

    @property
    def _shares(self) -> torch.Tensor:
        return shares(self.sequences)

    @property
    def by_kind(self) -> torch.Tensor:
        """(3, N, K) float64, the experts' shares of each kind's tokens, all sequences together.

        NaN for a kind without tokens.
        """
        return shares(self.tokens.sum(1)).transpose(0, 1)

    @property
    def num_tokens(self) -> dict[str, int]:
        """Tokens of each kind."""
        return dict(zip(KINDS, self.tokens[0].sum((0, 2)).tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a kind without tokens is left out of the shares."""
        return {
            "layers": list(self.layers),
            "sequences": self.tokens.shape[1],
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "tokens": self.num_tokens,
            "by_kind": {
                kind: share.tolist()
                for kind, share in zip(KINDS, self.by_kind, strict=True)
                if self.num_tokens[kind]
            },
        }


def shares(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (..., K) as float64 shares that sum to 1; NaN where there is no token."""
    tokens = tokens.double()
    return tokens / tokens.sum(-1, keepdim=True)


def tally(expert: torch.Tensor, kinds: torch.Tensor, num_experts: int) -> torch.Tensor:
    """Counts one batch.

    Args:
        expert: (N, B, L) int64, the chosen experts.
        kinds: (B, L) int64, places in `KINDS`, negative where there is no token.
        num_experts: K.

    Returns:
        (N, B, 3, K) int64.
    """
    N, B, _ = expert.shape
    M = len(KINDS)
    slot = (torch.arange(B)[:, None] * M + kinds) * num_experts + expert  # (N, B, L)
    slot = slot + torch.arange(N)[:, None, None] * B * M * num_experts
    counts = torch.bincount(slot[:, kinds >= 0].flatten(), minlength=N * B * M * num_experts)
    return counts.view(N, B, M, num_experts)


@torch.inference_mode()
def count(model: nn.Module, batches: Iterable[tuple[Mapping[str, Any], torch.Tensor]]) -> Counts:
    """Runs every batch through ``model`` and counts its tokens.

    Args:
        model: with one active MoLE adapter, in eval mode.
        batches: as `samples.batches` gives them.

    Raises:
        ValueError: the model has no MoLE layer, or there is no batch.
    """
    layers, num_experts = layers_of(model), experts_of(model)
    device = next(model.parameters()).device
    parts = []
    for inputs, kinds in batches:
        moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        model(**moved)
        parts.append(tally(choices_of(model, kinds.shape).expert, kinds, num_experts))
    if not parts:
        raise ValueError("no sample to route; give at least one record")
    return Counts(layers, torch.cat(parts, dim=1))


def table(counts: Mapping[str, Counts]) -> str:
    """A text table: each set's share of tokens per expert, averaged over layers."""
    experts = next(iter(counts.values())).tokens.shape[-1]
    width = max([len("set"), *map(len, counts)])
    lines = [f"{'set':{width}}" + "".join(f"  expert {k:<3}" for k in range(experts))]
    for name, one in counts.items():
        share = one.mean.mean(0)
        lines.append(f"{name:{width}}" + "".join(f"  {100 * s:8.1f}%" for s in share.tolist()))
    return "\n".join(lines)
