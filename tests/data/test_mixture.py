import collections
from fractions import Fraction

import numpy as np
import pytest

from llava_mole.data.mixture import Mixture, Part
from llava_mole.data.sampler import EpochSampler


def _counts(pairs, dataset):
    return collections.Counter(pairs[pairs[:, 0] == dataset, 1].tolist())


def test_double_weight_shows_each_sample_exactly_twice():
    mixture = Mixture([Part("a", "x", 101, 2.0), Part("b", "y", 7, 1.0)], seed=3)
    for epoch in range(3):
        pairs = mixture.epoch(epoch)
        assert pairs.dtype == np.int64
        assert pairs.shape == (209, 2)
        assert set(_counts(pairs, 0).values()) == {2}
        assert set(_counts(pairs, 1).values()) == {1}


def test_quarter_weight_shows_each_sample_once_in_four_epochs():
    mixture = Mixture([Part("a", "x", 103, 0.25)], seed=0)
    seen = collections.Counter()
    for epoch in range(4):
        seen += _counts(mixture.epoch(epoch), 0)
    assert seen == collections.Counter(dict.fromkeys(range(103), 1))


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.7, 1.1, 2.5, 1 / 3])
def test_counts_are_exact_to_one_in_each_epoch_and_cumulatively(weight):
    size, total = 97, 0
    mixture = Mixture([Part("a", "x", size, weight)], seed=1)
    exact = Fraction(repr(weight)) * size
    for epoch in range(40):
        count = len(mixture.epoch(epoch))
        assert mixture.counts(epoch) == {"x": count}
        assert abs(count - exact) < 1
        total += count
        assert abs(total - (epoch + 1) * exact) < 1
    assert total == int(40 * exact)


def test_order_depends_on_seed_and_epoch_alone():
    parts = [Part("a", "x", 50), Part("b", "y", 60, 0.5)]
    first = Mixture(parts, seed=5)
    for epoch in (3, 0, 1):
        first.epoch(epoch)
    again = Mixture(parts, seed=5)
    for epoch in range(4):
        assert np.array_equal(first.epoch(epoch), again.epoch(epoch))
        assert np.array_equal(first.epoch(np.int64(epoch)), again.epoch(epoch))
    assert not np.array_equal(first.epoch(0), first.epoch(1))
    assert not np.array_equal(first.epoch(0), Mixture(parts, seed=6).epoch(0))


def test_order_is_the_same_on_every_machine():
    # Written down once: a change here breaks the resumption of every run on disk.
    pairs = Mixture([Part("a", "x", 4), Part("b", "y", 3)], seed=0).epoch(0)
    assert pairs.tolist() == [[1, 2], [0, 0], [0, 3], [0, 2], [1, 0], [0, 1], [1, 1]]


def test_data_sets_are_interleaved():
    pairs = Mixture([Part("a", "x", 1000), Part("b", "y", 1000)], seed=0).epoch(0)
    for block in np.split(pairs[:, 0], 10):
        assert 60 < block.sum() < 140


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([Part("a", "x", 3, -1)], "must be >= 0"),
        ([Part("a", "x", 0, 1)], "no samples"),
        ([Part("a", "x", 3, 0)], "nothing to do"),
        ([Part("a", "x", 3), Part("b", "x", 3)], "unique"),
    ],
)
def test_unusable_mixtures(parts, reason):
    with pytest.raises(ValueError, match=reason):
        Mixture(parts)


def test_table_shows_realised_counts():
    table = Mixture([Part("general", "x", 1000, 2), Part("bio", "y", 10, 0.5)]).table()
    assert "2,000" in table
    assert "99.8%" in table


def test_sampler_yields_whole_global_batches_and_logs_the_rest(caplog):
    mixture = Mixture([Part("a", "x", 10, 0.25), Part("b", "y", 20)], seed=0)
    sampler = EpochSampler(mixture, 8)
    lengths = set()
    for epoch in range(4):
        sampler.set_epoch(epoch)
        with caplog.at_level("INFO"):
            drawn = list(sampler)
        assert drawn == [tuple(pair) for pair in mixture.epoch(epoch)[: len(drawn)].tolist()]
        lengths.add(len(drawn))
    assert lengths == {16} == {len(sampler)}
    assert "6 of 22 samples" in caplog.text
    with pytest.raises(ValueError, match="less than one global batch"):
        EpochSampler(mixture, 23)


def test_ranks_together_see_the_global_order():
    mixture = Mixture([Part("a", "x", 64)], seed=0)
    whole = list(EpochSampler(mixture, 8))
    for ranks in (1, 2, 4):
        # As accelerate's BatchSamplerShard deals: rank r takes each ranks-th micro-batch of 2.
        micro = [whole[start : start + 2] for start in range(0, 64, 2)]
        shares = [micro[rank::ranks] for rank in range(ranks)]
        dealt = [pair for step in zip(*shares, strict=True) for batch in step for pair in batch]
        assert dealt == whole
