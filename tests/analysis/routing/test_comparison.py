"""Mutual information and its level of chance against direct formulas and all possible shuffles."""

import itertools
import math

import pytest
import torch

from llava_mole.analysis.routing.comparison import (
    compare,
    most_information,
    mutual_information,
)
from llava_mole.analysis.routing.counts import Counts
from llava_mole.mole.statistics import jensen_shannon


def information(table):
    """Sum of p log2(p / (p_d p_k)) over data sets and experts, by loops."""
    total = sum(map(sum, table))
    bits = 0.0
    for row in table:
        for k, cell in enumerate(row):
            if cell:
                p = cell / total
                expert = sum(other[k] for other in table) / total
                bits += p * math.log2(p / (sum(row) / total * expert))
    return bits


def counts(*sets):
    """Data sets of one layer from lists of sequences, each the tokens of each expert."""
    return {
        name: Counts((0,), torch.tensor(sequences)[None, :, None])
        for name, sequences in zip("abc", sets, strict=False)
    }


def test_mutual_information_against_the_formula():
    tokens = torch.randint(0, 30, (3, 5, 4), generator=torch.Generator().manual_seed(0))
    tokens[0, 0, 1] = 0
    tokens[1, 1] = torch.tensor([9, 0, 0, 0])
    found = mutual_information(tokens)
    for layer in range(5):
        assert float(found[layer]) == pytest.approx(information(tokens[:, layer].tolist()))


def test_its_ends():
    same = torch.tensor([[[10, 20]], [[100, 200]]])
    assert float(mutual_information(same)) == pytest.approx(0, abs=1e-12)
    apart = torch.tensor([[[30, 0]], [[0, 10]]])
    most = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert float(mutual_information(apart)) == pytest.approx(most)
    assert most_information(apart) == pytest.approx(most)
    # Three sets, two experts: an expert can tell one bit at most.
    assert most_information(torch.ones(3, 1, 2)) == 1
    even = torch.tensor([[[7, 3, 0]], [[1, 4, 5]]])
    assert mutual_information(even) == pytest.approx(jensen_shannon(even.double()))


def test_chance_is_that_of_all_assignments_of_sequences():
    sequences = [[9, 1], [6, 2], [1, 5], [2, 2], [0, 4]]
    found = compare(counts(sequences[:2], sequences[2:]), shuffles=4000)
    every = []
    for first in itertools.combinations(range(5), 2):
        groups = [first, [n for n in range(5) if n not in first]]
        every.append([[sum(sequences[n][k] for n in g) for k in range(2)] for g in groups])
    expected = [information(table) for table in every]
    measured = information(every[0])
    assert float(found.information.value) == pytest.approx(measured)
    mean = sum(expected) / len(expected)
    assert float(found.information.chance_mean) == pytest.approx(mean, abs=0.01)
    assert float(found.information.above_chance) == pytest.approx(measured - mean, abs=0.01)
    reach = sum(value >= measured - 1e-9 for value in expected) / len(expected)
    assert float(found.information.p_value) == pytest.approx(reach, abs=0.03)
    # A shuffle keeps the sizes of the data sets and all tokens.
    possible = sorted({round(value, 9) for value in expected})
    assert (
        sorted({round(value, 9) for value in found.information.chance[:, 0].tolist()}) == possible
    )


def test_sets_that_do_not_differ_are_at_chance_and_sets_that_do_are_above():
    generator = torch.Generator().manual_seed(0)
    alike = torch.multinomial(
        torch.tensor([0.5, 0.3, 0.2]).expand(60, 3), 40, True, generator=generator
    )
    rows = torch.stack([(alike == k).sum(1) for k in range(3)], 1)
    none = compare(counts(rows[:30].tolist(), rows[30:].tolist()))
    assert float(none.information.value) > 0
    assert abs(float(none.information.above_chance)) < float(none.information.chance_95)
    assert float(none.information.p_value) > 0.01
    some = compare(counts(rows[:30].tolist(), rows[30:].flip(1).tolist()))
    assert float(some.information.value) > 5 * float(some.information.chance_95)
    assert float(some.information.p_value) == pytest.approx(1 / 501)


def test_pairs_and_all():
    found = compare(counts([[8, 2], [7, 3]], [[1, 9]], [[5, 5]]), shuffles=10)
    assert list(found.pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    tokens = torch.tensor([[[15.0, 5.0]], [[1.0, 9.0]], [[5.0, 5.0]]]).double()
    assert found.pairs["a", "c"].tolist() == jensen_shannon(tokens[[0, 2]]).tolist()
    assert found.jensen_shannon.value.tolist() == jensen_shannon(tokens).tolist()
    assert found.jensen_shannon.maximum == 1
    written = found.to_dict()
    assert written["shuffles"] == 10
    assert written["pairs"][0]["sets"] == ["a", "b"]
    again = compare(counts([[8, 2], [7, 3]], [[1, 9]], [[5, 5]]), shuffles=10)
    assert again.to_dict() == written


def test_one_set_has_nothing_to_compare():
    with pytest.raises(ValueError, match="two at least"):
        compare(counts([[1, 2]]))
