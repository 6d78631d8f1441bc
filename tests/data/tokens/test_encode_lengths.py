"""What encoding refuses and leaves out, its lengths in batches, and what these are kept under."""

import dataclasses
import os
import random
import subprocess
import sys

import pytest
from tokenizers import AddedToken

from llava_mole.data.records import BadRecord
from llava_mole.data.tokens.encode import Encoder, count_image_tokens, encode, image_token_id
from llava_mole.model.templates import conversation, template_for
from tests import tiny
from tests.data.helpers import PlainLike, VicunaLike, record
from tests.data.tokens.vocabularies import (
    GivenSpans,
    llama_like,
    random_contents,
    sentencepiece_like,
    trained_bpe,
)

P = 4


def test_boundaries_of_the_length(tokenizer):
    turns = record("<image>\nWhat?", "rectangle")
    length = len(encode(turns, tokenizer, VicunaLike(), P, 10_000).input_ids)
    for overlong in ("error", "drop_turns"):
        assert len(encode(turns, tokenizer, VicunaLike(), P, length, overlong).input_ids) == length
        with pytest.raises(BadRecord, match=rf"{length} tokens.*model_max_length") as caught:
            encode(turns, tokenizer, VicunaLike(), P, length - 1, overlong)
        assert "f.jsonl:7: record 'r1'" in str(caught.value)


def test_drop_turns_leaves_out_whole_exchanges_with_their_images(tokenizer):
    first = record("<image>Q", "A")
    both = record("<image>Q", "A", "<image><image>R", "B")
    whole = encode(both, tokenizer, VicunaLike(), P, 10_000)
    assert (whole.images, whole.dropped_turns) == (("0.png", "1.png", "2.png"), 0)
    short = encode(both, tokenizer, VicunaLike(), P, len(whole.input_ids) - 1, "drop_turns")
    alone = encode(first, tokenizer, VicunaLike(), P, 10_000)
    assert short.input_ids.tolist() == alone.input_ids.tolist()
    assert short.labels.tolist() == alone.labels.tolist()
    assert (short.images, short.dropped_turns) == (("0.png",), 2)
    with pytest.raises(BadRecord, match="would not fit"):
        encode(both, tokenizer, VicunaLike(), P, len(whole.input_ids) - 1)


def test_nothing_supervised_is_an_error(tokenizer):
    with pytest.raises(BadRecord, match="no token of the answer is supervised"):
        encode(record("Q", "A"), tokenizer, GivenSpans(("QA", False)), P, 100)


def test_a_template_that_loses_an_image_is_an_error(tokenizer):
    with pytest.raises(BadRecord, match=r"shows 1 <image> for 2 image\(s\)"):
        encode(record("<image><image>Q", "A"), tokenizer, PlainLike(), P, 100)
    with pytest.raises(BadRecord, match="has no <image>"):
        encode(record("Q", "A"), tokenizer, conversation("plain"), P, 100)


def test_tokenizers_that_cannot_be_used(tokenizer):
    with pytest.raises(ValueError, match="no <image> token"):
        image_token_id(tiny.tiny_tokenizer(image_token=False))


def test_encoder_is_encode_with_its_settings(tokenizer):
    turns = record("<image>Q", "A")
    encoder = Encoder(tokenizer, VicunaLike(), P, 100)
    assert (
        encoder(turns).input_ids.tolist()
        == encode(turns, tokenizer, VicunaLike(), P, 100).input_ids.tolist()
    )


def test_image_tokens_of_a_processor():
    assert count_image_tokens(tiny.tiny_processor()) == tiny.NUM_IMAGE_TOKENS


TOKENIZERS = {
    "bytes": tiny.tiny_tokenizer,
    "bpe": lambda: trained_bpe(False),
    "bpe, offsets trimmed": lambda: trained_bpe(True),
    "llama": llama_like,
    "unigram": lambda: sentencepiece_like(False),
    "unigram, legacy": lambda: sentencepiece_like(True),
}


def _alone(encoder, turns):
    """Length or reason by `encode`, one record at a time."""
    try:
        return len(encoder(turns).input_ids)
    except BadRecord as error:
        return str(error)


def _batched(encoder, records):
    return [str(x) if isinstance(x, BadRecord) else x for x in encoder.lengths(records)]


@pytest.mark.parametrize("conv_mode", ["vicuna_v1", "plain", "chatml"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_batched_lengths_are_those_of_encode(name, conv_mode):
    tokenizer = TOKENIZERS[name]()
    encoder = Encoder(tokenizer, template_for(conv_mode, tokenizer), P, 10**9)
    chooser = random.Random(name + conv_mode)
    records = [record(*random_contents(chooser)) for _ in range(300)]
    expected = [_alone(encoder, turns) for turns in records]
    assert _batched(encoder, records) == expected
    assert sum(isinstance(length, int) for length in expected) >= 50
    short = Encoder(tokenizer, encoder.template, P, 3)
    assert _batched(short, records) == expected, "max_length has no part in it"
    assert encoder.lengths([]) == []


@pytest.mark.parametrize(
    "spans",
    [
        [("QA", False)],
        [("A", True)],
        [("Q", False), ("A", True), ("<image>", True)],
        [("Q<image>", False), ("A", True)],
        [("<image>", True)],
        [("</s>", True)],
        [("", False), ("</s>", True)],
        [("<s>", True)],
        [("Q", False), ("A</s>", True), ("b", True)],
        [("Q", False), ("A</s>", True), ("", True), ("b</s>", False)],
        [("Q", False), ("A", True), ("", True), (" B", False), ("", True)],
        # One token from before the target reaches to its end; another target is fine.
        [("x", False), ("A", True), (" chat USE", False), ("R:", True)],
    ],
)
def test_batched_lengths_of_odd_spans(spans):
    for tokenizer in (tiny.tiny_tokenizer(), trained_bpe(False), sentencepiece_like(False)):
        encoder = Encoder(tokenizer, GivenSpans(*spans), P, 10**9)
        for turns in (record("Q", "A"), record("<image>Q", "A")):
            assert _batched(encoder, [turns]) == [_alone(encoder, turns)]


@pytest.mark.parametrize(
    "other", ["x</s>", "x<", "red</", "</s></s>", "a</s>b", "</s>.", "s>", "/s>!", "</", "<image>"]
)
def test_batched_lengths_beside_a_token_that_covers_the_end(other):
    for flags in ({"special": True}, {"special": False}, {"lstrip": True}, {"rstrip": True}):
        tokenizer = tiny.tiny_tokenizer()
        tokenizer.add_tokens([AddedToken(other, normalized=False, **flags)])
        for end in ("</s>", other):
            for before in ("red", "x", "a", "red ", "<", ""):
                for asked, answered in ((before, ""), ("", before)):
                    spans = [("Q" + asked, False), (answered + end, True), ("b", False)]
                    encoder = Encoder(tokenizer, GivenSpans(*spans), P, 10**9)
                    turns = record("Q", "A")
                    assert _batched(encoder, [turns]) == [_alone(encoder, turns)], (flags, spans)


def test_most_lengths_need_no_second_look(monkeypatch):
    tokenizer = llama_like()
    encoder = Encoder(tokenizer, template_for("vicuna_v1", tokenizer), P, 100)
    records = [record("<image>\nWhat?", answer) for answer in ("red", "照", "</s>", "a\n")]
    expected = encoder.lengths(records)
    monkeypatch.setattr(Encoder, "_exact_length", None)
    assert encoder.lengths(records) == expected


def test_a_target_inside_a_token_of_the_prompt_is_none():
    encoder = Encoder(sentencepiece_like(False), GivenSpans(("A USER", False), (":", True)), P, 99)
    (found,) = encoder.lengths([record("Q", "A")])
    assert isinstance(found, BadRecord)


def test_truncation_that_was_saved_with_a_tokenizer_has_no_part():
    tokenizer = tiny.tiny_tokenizer()
    encoder = Encoder(tokenizer, VicunaLike(), P, 100)
    # Of text alone: cut short, it would still look whole.
    turns = record("Q", "A" * 50)
    before, digest = encoder.lengths([turns]), encoder.fingerprint
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=500)
    assert encoder.lengths([turns]) == before
    tokenizer.backend_tokenizer.enable_truncation(5)
    assert Encoder(tokenizer, encoder.template, P, 100).fingerprint == digest


FINGERPRINT = """
from llava_mole.data.tokens.encode import Encoder
from llava_mole.model.templates import template_for
from tests.data.tokens.vocabularies import llama_like
tokenizer = llama_like()
print(Encoder(tokenizer, template_for("vicuna_v1", tokenizer), 4, 10).fingerprint)
"""


def test_the_fingerprint_is_the_same_in_every_process():
    tokenizer = llama_like()
    template = template_for("vicuna_v1", tokenizer)
    run = subprocess.run(
        [sys.executable, "-c", FINGERPRINT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )
    assert run.stdout.strip() == Encoder(tokenizer, template, P, 10).fingerprint


def test_the_fingerprint_tells_apart_what_lengths_depend_on():
    tokenizer, other = tiny.tiny_tokenizer(), tiny.tiny_tokenizer()
    other.add_tokens(["rectangle"])
    template = template_for("vicuna_v1", tokenizer)
    same = [
        Encoder(tokenizer, template, P, 10),
        Encoder(tokenizer, template_for("vicuna_v1", tokenizer), P, 99, "drop_turns"),
    ]
    others = [
        Encoder(other, template, P, 10),
        Encoder(tokenizer, template_for("plain", tokenizer), P, 10),
        Encoder(tokenizer, dataclasses.replace(template, system="Hi."), P, 10),
        Encoder(tokenizer, template, P + 1, 10),
    ]
    assert len({encoder.fingerprint for encoder in same}) == 1
    assert len({encoder.fingerprint for encoder in (*same, *others)}) == 5
