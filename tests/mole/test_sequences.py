import pytest
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
    three = torch.zeros(3, 2, 3, dtype=torch.long)
    assert sequence_ids(None, three, (2, 3), "cpu").tolist() == [[0, 0, 0], [1, 1, 1]]


def prepared(rows, segments=None, dtype=torch.bool):
    """A causal 4-D mask: ``rows`` says what is real, ``segments`` what belongs together."""
    real = torch.tensor(rows, dtype=torch.bool)
    L = real.shape[1]
    attends = torch.ones(L, L).tril().bool() & real[:, None] & real[:, :, None]
    if segments is not None:
        segment = torch.tensor(segments)
        attends &= segment[:, None] == segment[:, :, None]
    if dtype != torch.bool:
        attends = torch.zeros(attends.shape, dtype=dtype).masked_fill(
            ~attends, torch.finfo(dtype).min
        )
    return attends[:, None]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16])
def test_a_prepared_mask_says_what_is_padding(dtype):
    mask = prepared([[0, 1, 1], [1, 1, 0], [1, 1, 1]], dtype=dtype)
    positions = torch.tensor([[0, 0, 1], [0, 1, 2], [0, 1, 2]])
    ids, S = sequence_layout(mask, positions, (3, 3), "cpu")
    assert ids.tolist() == [[-1, 0, 0], [1, 1, -1], [2, 2, 2]]
    assert S == 3


def test_a_prepared_mask_says_where_packed_sequences_begin():
    mask = prepared([[1, 1, 1, 1, 0], [1] * 5], [[0, 0, 1, 1, 1], [0, 1, 1, 1, 2]])
    ids, S = sequence_layout(mask, None, (2, 5), "cpu")
    assert ids.tolist() == [[0, 0, 1, 1, -1], [2, 3, 3, 3, 4]]
    assert S == 5


def test_one_prepared_row_holds_for_all():
    ids, S = sequence_layout(prepared([[1, 1, 1]]), None, (2, 3), "cpu")
    assert ids.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert S == 2


def test_a_prepared_mask_is_wider_than_the_tokens_where_a_cache_is():
    """Three tokens in the cache, two new ones, room for more; the second row's first is padding."""
    mask = torch.zeros(2, 1, 2, 8, dtype=torch.bool)
    mask[0, 0, 0, :4], mask[0, 0, 1, :5] = True, True
    mask[1, 0, 1, 4] = True
    assert sequence_ids(mask, None, (2, 2), "cpu", 3).tolist() == [[0, 0], [-1, 1]]
    assert sequence_ids(mask[:, :, :1], None, (2, 1), "cpu").tolist() == [[0], [1]]
    too_narrow = mask[..., :4]
    assert sequence_ids(too_narrow, None, (2, 2), "cpu", 3).tolist() == [[0, 0], [1, 1]]


def test_a_gap_in_a_row_or_a_prefix_that_two_answers_share_begins_no_sequence():
    mask = prepared([[1, 1, 0, 1, 1]])
    assert sequence_layout(mask, None, (1, 5), "cpu")[0].tolist() == [[0, 0, -1, 0, 0]]
    shared = prepared([[1] * 5])
    shared[..., 3:, 2] = False  # tokens 2 and 3 both follow 0 and 1, and don't see each other
    ids, S = sequence_layout(shared, None, (1, 5), "cpu")
    assert (ids.tolist(), S) == ([[0] * 5], 1)


def test_a_row_of_padding_alone_is_counted():
    mask = prepared([[0, 0, 0], [0, 1, 1]])
    ids, S = sequence_layout(mask, None, (2, 3), "cpu")
    assert ids.tolist() == [[-1, -1, -1], [-1, 1, 1]]
    assert S == 2


def test_a_mask_of_another_batch_is_ignored():
    mask = prepared([[0, 1, 1]] * 4)
    assert sequence_ids(mask, None, (2, 3), "cpu").tolist() == [[0, 0, 0], [1, 1, 1]]
