import torch

from llava_mole.mole import sequence_ids, sequence_layout


def test_rows_without_mask():
    ids, S = sequence_layout(None, None, (2, 3), "cpu")
    assert ids.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert ids.dtype == torch.int64
    assert S == 2


def test_mask_marks_padding_on_either_side():
    mask = torch.tensor([[0, 1, 1], [1, 1, 0]])
    assert sequence_ids(mask, None, (2, 3), "cpu").tolist() == [[-1, 0, 0], [1, 1, -1]]


def test_mask_is_longer_than_the_tokens_when_decoding():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    positions = torch.tensor([[2], [3]])
    ids, S = sequence_layout(mask, positions, (2, 1), "cpu")
    assert ids.tolist() == [[0], [1]]
    assert S == 2


def test_packed_segments():
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]])
    ids, S = sequence_layout(None, positions, (1, 6), "cpu")
    assert ids.tolist() == [[0, 0, 0, 1, 1, 2]]
    assert S == 3


def test_packed_rows_number_on():
    positions = torch.tensor([[0, 1, 0], [0, 1, 2]])
    ids, S = sequence_layout(None, positions, (2, 3), "cpu")
    assert ids.tolist() == [[0, 0, 1], [2, 2, 2]]
    assert S == 3


def test_positions_that_go_on_start_a_row_all_the_same():
    ids, S = sequence_layout(None, torch.tensor([[5], [7]]), (2, 1), "cpu")
    assert ids.tolist() == [[0], [1]]
    assert S == 2


def test_shared_positions_and_other_ranks():
    ids = sequence_ids(None, torch.arange(3)[None], (2, 3), "cpu")
    assert ids.tolist() == [[0, 0, 0], [1, 1, 1]]
    four = torch.zeros(2, 1, 3, 3)
    assert sequence_ids(four, None, (2, 3), "cpu").tolist() == [[0, 0, 0], [1, 1, 1]]
    three = torch.zeros(3, 2, 3, dtype=torch.long)
    assert sequence_ids(None, three, (2, 3), "cpu").tolist() == [[0, 0, 0], [1, 1, 1]]
