import collections
from fractions import Fraction

import numpy as np
import pytest

from llava_mole.config import from_dict
from llava_mole.data.config import DataConfig, DatasetConfig, DomainConfig
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


@pytest.mark.parametrize(("resample", "weight"), [(167, 1), (40, 1), (167, 0.25), (31, 2), (97, 1)])
def test_a_resampled_set_counts_as_that_many(resample, weight):
    size, total, seen = 97, 0, collections.Counter()
    mixture = Mixture([Part("a", "x", size, weight, resample)], seed=2)
    exact = Fraction(repr(float(weight))) * resample
    for epoch in range(12):
        pairs = mixture.epoch(epoch)
        seen += _counts(pairs, 0)
        total += len(pairs)
        assert mixture.counts(epoch) == {"x": len(pairs)}
        assert abs(len(pairs) - exact) < 1
        assert abs(total - (epoch + 1) * exact) < 1
        # A stream of whole permutations: no sample is two passes ahead of another.
        assert max(seen.values()) - min(seen[row] for row in range(size)) <= 1


def test_the_papers_ureader():
    mixture = Mixture([Part("document", "ureader", 654_840, 1, 1_100_000)], seed=0)
    seen = _counts(mixture.epoch(0), 0)
    assert collections.Counter(seen.values()) == {1: 2 * 654_840 - 1_100_000, 2: 445_160}
    for number in ("654,840", "1,100,000", "counted as"):
        assert number in mixture.table()


def test_resampling_to_its_own_size_changes_nothing():
    parts = [Part("a", "x", 50), Part("b", "y", 60, 0.5)]
    same = [Part("a", "x", 50, 1, 50), Part("b", "y", 60, 0.5, 60)]
    assert np.array_equal(Mixture(parts).epoch(3), Mixture(same).epoch(3))


def test_the_sampler_counts_resampled_sets():
    mixture = Mixture([Part("a", "x", 10, 1, 35), Part("b", "y", 20, 0)], seed=0)
    sampler = EpochSampler(mixture, 8)
    assert len(sampler) == len(list(sampler)) == 32


@pytest.mark.parametrize(
    ("text", "count"),
    [("1.1M", 1_100_000), ("250k", 250_000), (7, 7), ("1_000", 1000), ("1,000", 1000)],
)
def test_counts_as_people_write_them(text, count):
    config = from_dict(DatasetConfig, {"name": "x", "path": "p", "resample": text}, "test")
    assert config.resample == count


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "0.1k5", "1.0001k", "2G", "1e6", 0, 1.5])
def test_what_is_no_count_is_named(text):
    with pytest.raises(ValueError, match="resample"):
        from_dict(DatasetConfig, {"name": "x", "path": "p", "resample": text}, "test")


def test_sets_of_weight_0_are_not_drawn():
    sets = [DatasetConfig("x", "p"), DatasetConfig("y", "q", weight=0)]
    domains = {"a": DomainConfig(1, sets), "b": DomainConfig(0, [DatasetConfig("z", "r")])}
    drawn = DataConfig(domains, packing=True).drawn()
    assert list(drawn.domains) == ["a"]
    assert [dataset.name for dataset in drawn.domains["a"].datasets] == ["x"]
    assert drawn.packing
    with pytest.raises(ValueError, match="every weight is 0"):
        DataConfig({"b": domains["b"]}).drawn()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"packing": True, "packing_length": 0}, "must be >= 1"),
        ({"packing_length": 10}, "set data.packing to true"),
        ({"packing": True, "group_by_modality_length": True}, "two ways"),
    ],
)
def test_impossible_batching(values, reason):
    with pytest.raises(ValueError, match=reason):
        DataConfig(**values)
