"""How global batches are dealt: nothing lost, nothing over budget, even as a slow search finds."""

import itertools

import numpy as np
import pytest

from llava_mole.data.layout import Layout, efficiency

RULES = {
    "in order": {"batch_size": 2},
    "grouped": {"batch_size": 2, "group_by_modality_length": True},
    "packed": {"packing_length": 4096},
}


def papers_mixture(samples, seed=0):
    """Lengths and image counts like the paper's: mean 1,119 tokens, up to 4,096."""
    rng = np.random.default_rng(seed)
    images = rng.choice(
        [0, 1, 2, 3, 4, 5, 6], samples, p=[0.02, 0.78, 0.04, 0.04, 0.04, 0.04, 0.04]
    )
    text = rng.lognormal(np.log(180), 0.8, samples).astype(int) + 40
    return np.minimum(text + 576 * images, 4096), images


def flat(rows):
    return [position for rank in rows for row in rank for position in row]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_every_sample_once_and_the_same_steps_on_all_ranks(rule, ranks):
    layout = Layout(ranks, **RULES[rule])
    for seed in range(5):
        lengths, images = papers_mixture(64, seed)
        rows = layout(lengths, images)
        assert sorted(flat(rows)) == list(range(64))
        assert len(rows) == ranks
        assert len({len(rank) for rank in rows}) == 1
        assert all(row for rank in rows for row in rank)
        assert rows == layout(lengths.tolist(), images.tolist())


def test_in_order_is_dealt_as_accelerate_does():
    rows = Layout(2, 2)([5] * 8, [0] * 8)
    assert rows == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]


def test_grouping_keeps_modalities_and_lengths_together():
    lengths, images = papers_mixture(64)
    images[:16], lengths[:16] = 0, np.maximum(lengths[16:32], 1)  # as long as those with images
    grouped = Layout(2, 4, group_by_modality_length=True)(lengths, images)
    for row in itertools.chain(*grouped):
        assert len({bool(images[i]) for i in row}) == 1
    plain = efficiency(Layout(2, 4), 64, lengths, images)
    assert efficiency(Layout(2, 4, True), 64, lengths, images).useful_tokens > 0.8
    assert plain.useful_tokens < 0.75


def test_where_modalities_do_not_divide_one_micro_batch_is_mixed():
    images = [0] * 3 + [1] * 5
    rows = Layout(1, 4, group_by_modality_length=True)([10] * 8, images)
    assert sorted(len({images[i] for i in row}) for row in rows[0]) == [1, 2]


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 64])
def test_packed_rows_fit_and_are_as_few_as_longest_first_needs(ranks):
    for seed in range(3):
        lengths, images = papers_mixture(64, seed)
        rows = Layout(ranks, packing_length=4096)(lengths, images)
        steps = len(rows[0])
        assert all(sum(lengths[i] for i in row) <= 4096 for rank in rows for row in rank)
        if steps > 1:
            assert not longest_first_fits(lengths, ranks * (steps - 1), 4096)


def longest_first_fits(lengths, rows, budget):
    """By the book: the next longest into the least loaded, with a plain search for it."""
    loads = np.zeros(rows, dtype=int)
    for length in sorted(lengths, reverse=True):
        loads[loads.argmin()] += length
    return loads.max() <= budget


def test_packing_is_near_the_best_there_is():
    """Against all ways to deal 9 samples to 3 ranks in one row each."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        lengths = rng.integers(1, 100, 9)
        rows = Layout(3, packing_length=10_000)(lengths, [1] * 9)
        assert len(rows[0]) == 1
        slowest = max(sum(lengths[i] for i in rank[0]) for rank in rows)
        best = min(
            max(sum(lengths[i] for i in range(9) if ranks[i] == rank) for rank in range(3))
            for ranks in itertools.product(range(3), repeat=9)
        )
        assert slowest <= best * 4 / 3  # Graham's bound for longest first


def test_ranks_are_even_in_each_micro_step_and_in_all():
    lengths, images = papers_mixture(256)
    rows = Layout(8, packing_length=4096)(lengths, images)
    tokens = np.array([[sum(lengths[i] for i in row) for row in rank] for rank in rows])
    assert tokens.shape[1] > 1
    assert (tokens.max(0) / tokens.mean(0)).max() < 1.05
    assert tokens.sum(1).max() / tokens.sum(1).mean() < 1.01


def test_who_got_the_larger_row_gets_a_smaller_one():
    lengths = [60, 50, 40, 30]
    rows = Layout(2, packing_length=60)(lengths, [0] * 4)
    assert rows == [[[0], [3]], [[1], [2]]]


def test_images_decide_between_rows_of_equal_length():
    rows = Layout(2, packing_length=100)([50, 50, 40, 40], [3, 0, 2, 0])
    assert sorted(sum([3, 0, 2, 0][i] for i in rank[0]) for rank in rows) == [2, 3]


def test_one_sample_a_row_is_always_possible():
    rows = Layout(4, packing_length=10)([10] * 8, [0] * 8)
    assert all(len(row) == 1 for rank in rows for row in rank)
    assert len(rows[0]) == 2


def test_a_sample_longer_than_a_row_is_named_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"sample 2 .* 12 tokens, more than data.packing_length 10"
    ):
        Layout(1, packing_length=10)([3, 4, 12, 5], [0] * 4)


@pytest.mark.parametrize("layout", [Layout(3, 2), Layout(3, packing_length=100)])
def test_batches_that_do_not_divide(layout):
    with pytest.raises(ValueError, match=r"8 samples is no multiple of"):
        layout([1] * 8, [0] * 8)


def test_efficiency_by_hand():
    lengths, images = np.array([4, 2, 6, 4, 9, 9]), np.array([1, 0, 3, 0, 5, 5])
    # Two ranks, one micro-step: rows (4, 2) and (6, 4) are padded to 2 x 4 and 2 x 6.
    found = efficiency(Layout(2, 2), 4, lengths, images)
    assert found.useful_tokens == pytest.approx(16 / 20)
    assert found.rank_imbalance == pytest.approx(12 / 10)
    assert found.image_imbalance == pytest.approx(3 / 2)
    assert found.micro_steps == 1
    # One by one: micro-steps (4, 2) and (6, 4), each as slow as its longer one.
    found = efficiency(Layout(2, 1), 4, lengths, images)
    assert found.useful_tokens == 1
    assert found.rank_imbalance == pytest.approx((4 + 6) / 8)
    assert found.micro_steps == 2
    assert efficiency(Layout(1, 1), 2, lengths, images * 0).image_imbalance == 1
    with pytest.raises(ValueError, match="less than one global batch of 8"):
        efficiency(Layout(1, 1), 8, lengths, images)


def test_what_packing_gains_on_the_papers_mixture():
    """The levers of a 64-sample batch: 3.6 by one sample a rank, 1.05 packed on 8 ranks."""
    lengths, images = papers_mixture(64 * 40)
    assert efficiency(Layout(64), 64, lengths, images).rank_imbalance > 2.5
    assert efficiency(Layout(8), 64, lengths, images).rank_imbalance > 1.7
    packed = efficiency(Layout(8, packing_length=4096), 64, lengths, images)
    assert packed.rank_imbalance < 1.06
    assert packed.useful_tokens == 1
    assert efficiency(Layout(8, 8), 64, lengths, images).useful_tokens < 0.5
