"""How far an expert tells the kind of its token, against a slow count."""

import math
from collections import Counter

import pytest
import torch

from llava_mole.analysis.routing import Counts
from llava_mole.reproduce.routed import _kind_information


def test_kind_information_against_a_count_token_by_token():
    generator = torch.Generator().manual_seed(0)
    sets = [torch.randint(0, 9, (2, 5, 3, 4), generator=generator) for _ in range(2)]
    layers = []
    for layer in range(2):
        pairs = Counter()
        for tokens in sets:
            for sequence in tokens[layer].tolist():
                for kind, experts in enumerate(sequence):
                    for expert, number in enumerate(experts):
                        pairs[kind, expert] += number
        total = sum(pairs.values())
        kinds, experts = Counter(), Counter()
        for (kind, expert), number in pairs.items():
            kinds[kind] += number
            experts[expert] += number
        layers.append(
            sum(
                n / total * math.log2(n * total / (kinds[k] * experts[e]))
                for (k, e), n in pairs.items()
                if n
            )
        )
    found = _kind_information([Counts((0, 1), tokens) for tokens in sets])
    assert found == pytest.approx(sum(layers) / 2, abs=1e-5)


def test_an_expert_for_each_kind_tells_it_whole_and_one_for_all_tells_nothing():
    own = torch.zeros(1, 1, 3, 3, dtype=torch.int64)
    own[0, 0] = torch.eye(3, dtype=torch.int64) * 7
    assert _kind_information([Counts((0,), own)]) == pytest.approx(math.log2(3), abs=1e-5)
    assert _kind_information([Counts((0,), torch.full((1, 1, 3, 3), 7))]) == 0
