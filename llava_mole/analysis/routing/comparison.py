"""How much a layer's routing tells data sets apart, beside what chance alone would give.

Both figures below are above zero even where data sets do not differ, because a few sequences are
never exactly alike. So the sequences' data set labels are shuffled many times: what comes out then
is what chance gives. Whole sequences are shuffled, not tokens, because a sequence's tokens are
routed alike and count as far fewer independent observations than there are tokens.

Legend: M data sets, N layers, S sequences of all sets together, K experts, R shuffles.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from llava_mole.analysis.routing.counts import Counts
from llava_mole.mole.statistics import jensen_shannon, tokens_per_expert

SHUFFLES = 500


@dataclass(frozen=True)
class Figure:
    """One figure in bits, layer by layer.

    Attributes:
        value: (N,) float64, as measured.
        chance: (R, N) float64, with shuffled labels.
        maximum: the most it can be.
    """

    value: torch.Tensor
    chance: torch.Tensor
    maximum: float

    @property
    def chance_mean(self) -> torch.Tensor:
        """(N,) mean over shuffles."""
        return self.chance.mean(0)

    @property
    def chance_95(self) -> torch.Tensor:
        """(N,) what 95 % of the shuffles stay below."""
        return self.chance.quantile(0.95, dim=0)

    @property
    def above_chance(self) -> torch.Tensor:
        """(N,) the value less the mean over shuffles: about zero where data sets don't differ."""
        return self.value - self.chance_mean

    @property
    def p_value(self) -> torch.Tensor:
        """(N,) how often a shuffle reaches the value, the unshuffled order counted as one more."""
        reached = (self.chance >= self.value - 1e-12).sum(0)
        return (reached + 1) / (len(self.chance) + 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "bits": self.value.tolist(),
            "maximum": self.maximum,
            "chance_mean": self.chance_mean.tolist(),
            "chance_95": self.chance_95.tolist(),
            "above_chance": self.above_chance.tolist(),
            "p_value": self.p_value.tolist(),
        }


@dataclass(frozen=True)
class Comparison:
    """Data sets compared.

    Attributes:
        layers: the N decoder layers that have experts.
        jensen_shannon: between all data sets, each weighing the same.
        pairs: (N,) float64, Jensen-Shannon divergence of every two data sets.
        information: mutual information of a token's data set and its expert.
    """

    layers: tuple[int, ...]
    jensen_shannon: Figure
    pairs: dict[tuple[str, str], torch.Tensor]
    information: Figure

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "layers": list(self.layers),
            "shuffles": len(self.information.chance),
            "mutual_information": self.information.to_dict(),
            "jensen_shannon": self.jensen_shannon.to_dict(),
            "pairs": [
                {"sets": list(pair), "bits": bits.tolist()} for pair, bits in self.pairs.items()
            ],
        }


def mutual_information(tokens: torch.Tensor) -> torch.Tensor:
    """I(data set; expert) of a layer's tokens: how much the expert tells about the data set.

    Args:
        tokens: (M, N, K) tokens per data set, layer and expert.

    Returns:
        (N,) float64 in bits, between 0 and `most_information`. A data set weighs as many tokens as
        it has; with equal numbers this is their Jensen-Shannon divergence.
    """
    joint = tokens.double() / tokens.double().sum((0, 2), keepdim=True)
    independent = joint.sum(0, keepdim=True) * joint.sum(2, keepdim=True)
    ratio = torch.where(joint > 0, joint / independent, 1.0)
    return (joint * ratio.log2()).sum((0, 2)).clamp(min=0)


def most_information(tokens: torch.Tensor) -> float:
    """The most that `mutual_information` can be: the smaller one of H(data set) and log2 K."""
    share = tokens.double().sum((1, 2)) / tokens.double().sum()
    return min(float(-torch.special.xlogy(share, share).sum()) / math.log(2), _bits(tokens))


def compare(counts: Mapping[str, Counts], shuffles: int = SHUFFLES, seed: int = 0) -> Comparison:
    """Compares at least two data sets.

    Args:
        counts: data set name to its counts, of one model.
        shuffles: R.
        seed: of the shuffles.

    Raises:
        ValueError: fewer than two data sets.
    """
    if len(counts) < 2:
        raise ValueError("data sets are compared with each other; give two at least")
    sequences = torch.cat([one.sequences for one in counts.values()], dim=1).double()  # (N, S, K)
    sizes = torch.tensor([one.tokens.shape[1] for one in counts.values()])
    labels = torch.arange(len(sizes)).repeat_interleave(sizes)
    tokens = tokens_per_expert(sequences, labels, len(sizes))
    generator = torch.Generator().manual_seed(seed)
    by_chance = []
    for _ in range(shuffles):
        shuffled = labels[torch.randperm(len(labels), generator=generator)]
        by_chance.append(tokens_per_expert(sequences, shuffled, len(sizes)))
    by_name = dict(zip(counts, tokens, strict=True))
    most = min(math.log2(len(sizes)), _bits(tokens))
    return Comparison(
        next(iter(counts.values())).layers,
        Figure(jensen_shannon(tokens), torch.stack([*map(jensen_shannon, by_chance)]), most),
        {
            (a, b): jensen_shannon(torch.stack([by_name[a], by_name[b]]))
            for a, b in itertools.combinations(counts, 2)
        },
        Figure(
            mutual_information(tokens),
            torch.stack([*map(mutual_information, by_chance)]),
            most_information(tokens),
        ),
    )


def _bits(tokens: torch.Tensor) -> float:
    return math.log2(tokens.shape[-1])
