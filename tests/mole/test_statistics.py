import math

import pytest
import torch

from llava_mole.mole import (
    dead_expert_share,
    jensen_shannon,
    load_entropy,
    summarize_load,
    tokens_per_expert,
)


def test_tokens_per_dataset_by_hand():
    counts = torch.tensor([[[1.0, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]])  # (2, 3, 2)
    tokens = tokens_per_expert(counts, torch.tensor([1, 0, 1]), 3)
    assert tokens.tolist() == [[[3, 4], [9, 10]], [[6, 8], [18, 20]], [[0, 0], [0, 0]]]


def test_entropy_by_hand():
    tokens = torch.tensor([[1.0, 1, 1, 1], [4, 0, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0]])
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(4)
    assert load_entropy(tokens).tolist() == pytest.approx([1, 0, quarter, 0])
    assert load_entropy(torch.tensor([[5.0]])).tolist() == [1]


def test_dead_experts():
    tokens = torch.tensor([[98.0, 1, 1, 0], [25, 25, 25, 25]])
    assert dead_expert_share(tokens).tolist() == [0.25, 0]
    assert dead_expert_share(tokens, threshold=0.01).tolist() == [0.75, 0]


def test_jensen_shannon_against_its_definition():
    # Layers: the same load, no shared expert, and one in between. Third dataset has no tokens.
    tokens = torch.tensor(
        [
            [[2.0, 2], [5, 0], [3, 1]],
            [[50, 50], [0, 1], [1, 1]],
            [[0, 0], [0, 0], [0, 0]],
        ]
    )
    p, q = (0.75, 0.25), (0.5, 0.5)
    mixed = [(a + b) / 2 for a, b in zip(p, q, strict=True)]

    def kl(u, v):
        return sum(a * math.log2(a / b) for a, b in zip(u, v, strict=True))

    expected = [0, 1, (kl(p, mixed) + kl(q, mixed)) / 2]
    assert jensen_shannon(tokens).tolist() == pytest.approx(expected, abs=1e-6)


def test_summary_shapes_and_sums():
    tokens = torch.randint(0, 9, (3, 4, 5)).float()
    tokens[:, 1] = 0
    tokens[:, 1, 2] = 7
    summary = summarize_load(tokens)
    assert summary["load"].shape == (4, 5)
    assert summary["dataset_load"].shape == (3, 4, 5)
    assert summary["load"].sum(-1).tolist() == pytest.approx([1] * 4)
    assert summary["max_load"][1] == 1
    assert summary["entropy"][1] == 0
    assert summary["jensen_shannon"].shape == (4,)
    assert 0 <= summary["dead_experts"] <= 1
