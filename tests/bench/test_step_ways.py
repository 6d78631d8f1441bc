"""LLaVA's way: its grouping worked out by hand, and labels at all positions."""

import numpy as np
import pytest
import torch

from llava_mole.bench.step.ways import ALL_LEVERS, LLAVA, LLAVA_NAME, WithLabels, llava_order, ways
from llava_mole.data.collate import PackedCollator, PaddedCollator, Sample
from llava_mole.data.tokens.encode import IGNORE_INDEX, Encoded


def test_grouping_by_hand():
    #          0  1   2  3  4  5  6  7  8  9
    lengths = [5, 9, 90, 7, 3, 80, 8, 6, 4, 2]
    images = [1, 1, 0, 1, 1, 0, 1, 1, 1, 1]
    # Images: [0 1 3 4] and [6 7 8 9]; what is left over, text alone, comes last. Sorted, the first
    # run is 9 7 5 3: 9 opens a micro-batch, 7 the other, 5 joins 7, 3 is left for 9.
    assert llava_order(lengths, images, 4, 2) == [1, 4, 3, 0, 6, 9, 7, 8, 2, 5]


@pytest.mark.parametrize("seed", range(5))
def test_grouping_keeps_every_sample_modalities_apart_and_sums_even(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(10, 500, 96).tolist()
    images = (rng.random(96) < 0.7).astype(int).tolist()
    order = llava_order(lengths, images, 16, 4)
    assert sorted(order) == list(range(96))
    runs = [order[start : start + 16] for start in range(0, 96, 16)]
    assert sum(len({images[i] for i in run}) > 1 for run in runs) <= 1
    spread = [
        max(sums) - min(sums)
        for run in runs
        for sums in [[sum(lengths[i] for i in run[at : at + 4]) for at in range(0, 16, 4)]]
    ]
    plain = [
        max(sums) - min(sums)
        for at in range(0, 96, 16)
        for sums in [[sum(lengths[at + 4 * c : at + 4 * c + 4]) for c in range(4)]]
    ]
    assert np.mean(spread) < 0.5 * np.mean(plain)


def made(lengths):
    samples = []
    for length in lengths:
        ids = torch.arange(length) + 100 * length
        labels = torch.full_like(ids, IGNORE_INDEX)
        labels[length // 2 :] = ids[length // 2 :]
        samples.append(Sample(encoded=Encoded(ids, labels, length - length // 2), dataset_id=0))
    return samples


def test_padded_labels_are_the_samples_own():
    samples = made([6, 3, 9])
    batch = WithLabels(PaddedCollator(0))(samples)
    assert "logits_to_keep" not in batch
    for row, sample in enumerate(samples):
        own = sample["encoded"].labels
        assert torch.equal(batch["labels"][row, : len(own)], own)
        assert (batch["labels"][row, len(own) :] == IGNORE_INDEX).all()


def test_packed_labels_never_ask_a_sample_for_the_next_ones_first_token():
    samples = made([1, 6, 3])  # the first token of the first sample is a target, and can't be one
    batch = WithLabels(PackedCollator())(samples)
    expected = torch.cat([sample["encoded"].labels for sample in samples])
    expected[0] = IGNORE_INDEX
    assert torch.equal(batch["labels"][0], expected)


def test_each_lever_alone_and_all_of_them():
    arms = ways()
    assert arms[LLAVA_NAME] == LLAVA
    assert arms["all levers"] == ALL_LEVERS
    assert LLAVA.checkpointing
    assert LLAVA.grouped
    assert LLAVA.dropout == 0.05
    for name, way in arms.items():
        differ = [field for field in vars(way) if getattr(way, field) != getattr(LLAVA, field)]
        if name == "packed":
            assert differ == ["grouped", "packed"]
        elif name not in (LLAVA_NAME, "all levers"):
            assert len(differ) == 1
