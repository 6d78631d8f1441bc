import math

import torch

from llava_mole.data.tokens.encode import IGNORE_INDEX
from llava_mole.train import counts, loss


def test_summed_cross_entropy_against_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 11, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 11, (3, 5), generator=generator)
    targets[0, :3] = targets[2] = IGNORE_INDEX
    expected = 0.0
    for row in range(3):
        for position in range(5):
            target = int(targets[row, position])
            if target == IGNORE_INDEX:
                continue
            values = logits[row, position].tolist()
            expected += math.log(sum(math.exp(value) for value in values)) - values[target]
    found = loss.summed_cross_entropy(logits, targets)
    assert found.dtype == torch.float32
    assert abs(found.item() - expected) < 1e-5


def test_no_target_is_zero_with_a_graph():
    logits = torch.randn(2, 3, 7, requires_grad=True)
    for kept in (3, 0):
        targets = torch.full((2, kept), IGNORE_INDEX)
        found = loss.summed_cross_entropy(logits[:, :kept], targets)
        found.backward()
        assert found.item() == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_ignore_index_is_the_collators():
    assert loss.IGNORE_INDEX == IGNORE_INDEX


def test_counts_leave_padding_out():
    padded = {
        "input_ids": torch.zeros(2, 4, dtype=torch.int64),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "targets": torch.tensor([[3, 4], [5, IGNORE_INDEX]]),
        "dataset_ids": torch.tensor([0, 1]),
    }
    packed = {
        "input_ids": torch.zeros(1, 6, dtype=torch.int64),
        "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1]]),
        "targets": torch.tensor([[3, 4, 5]]),
        "dataset_ids": torch.tensor([0, 1]),
    }
    assert counts.count(padded) == (3, 2, 0, 6, 8, 0)
    assert counts.count(packed) == (3, 2, 0, 6, 6, 0)
    packed |= {"pixel_values": torch.zeros(3, 3, 2, 2), "problems": ["x"]}
    assert counts.count(packed) == (3, 2, 1, 6, 6, 3)


def test_a_step_is_the_sum_of_its_micro_batches():
    def batch(targets, samples, length):
        return {
            "input_ids": torch.zeros(1, length, dtype=torch.int64),
            "targets": torch.zeros(1, targets, dtype=torch.int64),
            "dataset_ids": torch.zeros(samples, dtype=torch.int64),
        }

    total, work = counts.count_step([batch(3, 2, 7), batch(0, 1, 4)], torch.device("cpu"))
    assert total == counts.GlobalBatch(targets=3, sequences=3, tokens=11, unreadable=0)
    assert work.tolist() == [[[7, 7, 0], [4, 4, 0]]]
