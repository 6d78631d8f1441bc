"""Which side of a border a token is on, and what tokenizers like LLaMA's put around text."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from llava_mole.data.records import BadRecord
from llava_mole.data.tokens.encode import _first_characters, encode, image_token_id
from tests.data.helpers import PlainLike, VicunaLike, record
from tests.data.tokens.vocabularies import GivenSpans, sentencepiece_like, trained_bpe

P = 4


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        # "bc" is one token. It begins before the target: the prompt's.
        ([("ab", False), ("cd", True)], ["a", "bc", "d*"]),
        # It begins in the target and reaches beyond: the answer's.
        ([("ab", True), ("cd", False)], ["a*", "bc*", "d"]),
        ([("abc", False), ("d", True)], ["a", "bc", "d*"]),
        ([("a", False), ("bcd", True)], ["a", "bc*", "d*"]),
    ],
)
def test_tokens_across_a_border_belong_to_where_they_begin(spans, expected):
    vocabulary = {token: id for id, token in enumerate(["a", "b", "c", "d", "bc", "x"])}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[("b", "c")]))
    bpe.add_special_tokens([AddedToken("<image>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    encoded = encode(record("Q", "A"), tokenizer, GivenSpans(("x", False), *spans), P, 100)
    shown = [
        tokenizer.convert_ids_to_tokens(id) + ("*" if label != -100 else "")
        for id, label in zip(encoded.input_ids.tolist(), encoded.labels.tolist(), strict=True)
    ]
    assert shown == ["x", *expected]


def test_ranges_that_tokenizers_leave_empty():
    # "a" + white space trimmed off the offsets + "b", then a prefix put before "c".
    offsets = np.array([[0, 1], [3, 3], [3, 4], [4, 4], [4, 5]])
    assert _first_characters(offsets).tolist() == [0, 1, 3, 4, 4]


def test_what_nothing_comes_before_is_not_supervised(tokenizer):
    # A BOS in front of a target is not a target, and a lone token without BOS can't be predicted.
    encoded = encode(record("Q", "A"), tokenizer, GivenSpans(("A", True)), P, 100)
    assert encoded.input_ids.tolist()[0] == tokenizer.bos_token_id
    assert encoded.labels.tolist()[0] == -100
    assert encoded.num_supervised == 1
    with pytest.raises(BadRecord, match="no token of the answer is supervised"):
        encode(record("Q", "A"), trained_bpe(False), GivenSpans(("A", True)), P, 100)


def _targets(tokenizer, encoded):
    return tokenizer.convert_ids_to_tokens(encoded.labels[encoded.labels != -100].tolist())


@pytest.mark.parametrize("legacy", [False, True])
def test_llavas_vector(legacy):
    tokenizer = sentencepiece_like(legacy)
    turns = record("<image>\nWhat?", "rectangle")
    encoded = encode(turns, tokenizer, VicunaLike(), 1, 100)
    assert _targets(tokenizer, encoded) == ["▁rectangle", "</s>"]
    assert encoded.labels[-2:].tolist() == encoded.input_ids[-2:].tolist()
    assert encoded.input_ids[0] == tokenizer.bos_token_id
    assert encoded.num_supervised == 2


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("caption", ["A photo", "照照"])
def test_plain_learns_the_caption_and_the_newline(legacy, caption):
    tokenizer = sentencepiece_like(legacy)
    encoded = encode(record("<image>\nQ", caption), tokenizer, PlainLike(), P, 100)
    assert (encoded.input_ids == image_token_id(tokenizer)).sum() == P
    # All that follows the image, the prefix that legacy tokenizers put there included.
    assert encoded.labels[1 + P :].tolist() == encoded.input_ids[1 + P :].tolist()
    assert encoded.labels[: 1 + P].tolist() == [-100] * (1 + P)
    assert _targets(tokenizer, encoded)[-1] == "\n"
