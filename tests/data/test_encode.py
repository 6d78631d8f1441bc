"""Labels against oracles that never look at the tokenizer's offsets."""

import functools
import random

import numpy as np
import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from tokenizers import processors as post_processors
from transformers import PreTrainedTokenizerFast

from llava_mole.data.encode import (
    Encoder,
    _first_characters,
    count_image_tokens,
    encode,
    image_token_id,
)
from llava_mole.data.records import BadRecord
from llava_mole.model.templates import VICUNA_SYSTEM, conversation, template_for
from tests import tiny
from tests.data.helpers import PlainLike, Span, VicunaLike, record

P = 4
VOCABULARY = [
    *("hello", "rectangle", "ASSISTANT:", " ASSISTANT: ", "USER:", "</s>", "<s>", "<image>"),
    *("<unk>", "<pad>", "<</s>", "</s></s>", "é", "照片", "\U0001f600", " ", "  ", "\n", "\t"),
    *("yes.", "None", "1,000", "<im", "age>", "\u00a0", "e\u0301", "\ufeff", "\u2003"),
    *("<repo_name>", "<repo_", "name>", "<</s>/s>", "<|im_end|>", "<|im_start|>user\n", "< /s>"),
]
SPECIAL = ("<unk>", "<s>", "</s>", "<image>", "<pad>", "<repo_name>")


@pytest.fixture(scope="module")
def special_tokenizer():
    """The byte-level tokenizer with one more special token, as code models have."""
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<repo_name>"]})
    return tokenizer


def _random_contents(chooser):
    def text(forbidden=""):
        while True:
            words = chooser.choices(VOCABULARY, k=chooser.randint(1, 8))
            made = "".join(w for w in words if w != forbidden)
            if made.strip() and (not forbidden or forbidden not in made):
                return made

    contents = []
    for _ in range(chooser.randint(1, 3)):
        user = text("<image>")
        for _ in range(chooser.choice([0, 0, 1, 2])):
            cut = chooser.randint(0, len(user))
            user = user[:cut] + "<image>" + user[cut:]
        contents += [user, text()]
    return contents


def _byte_ids(tokenizer, text):
    """Ids of ``text``, one for each byte: the tokenizer's alphabet, not its algorithm."""
    vocabulary = _vocabulary(tokenizer)
    return [vocabulary[byte] for byte in text.encode()]


@functools.lru_cache
def _vocabulary(tokenizer):
    return [tokenizer.convert_tokens_to_ids(character) for character in _byte_characters()]


def _byte_characters():
    """GPT-2's printable stand-ins for the 256 bytes, by their definition."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _as_data(text):
    """A space after the first character of each special string; these can't overlap."""
    return "".join(
        character + " " * any(text.startswith(string, index) for string in SPECIAL)
        for index, character in enumerate(text)
    )


def _oracle(tokenizer, contents):
    """Ids and target flags, written token by token from what the conversation means."""
    ids, target = [1], [False]

    def put(values, flag):
        ids.extend(values)
        target.extend([flag] * len(values))

    put(_byte_ids(tokenizer, VICUNA_SYSTEM + " "), False)
    for index, content in enumerate(contents):
        if index % 2 == 0:
            put(_byte_ids(tokenizer, "USER: "), False)
            pieces = content.split("<image>")
            text = _as_data("".join(pieces))
            text = text.strip() if len(pieces) > 1 else text
            for left in range(len(pieces) - 1, 0, -1):
                put([tiny.IMAGE_TOKEN_ID] * P, False)
                put(_byte_ids(tokenizer, "\n" if left > 1 or text else ""), False)
            put(_byte_ids(tokenizer, text + " ASSISTANT:"), False)
        else:
            put([*_byte_ids(tokenizer, " " + _as_data(content)), 2], True)
    return ids, [id if flag else -100 for id, flag in zip(ids, target, strict=True)]


def test_byte_tokens_agree_with_the_oracle_on_random_conversations(special_tokenizer):
    template = template_for("vicuna_v1", special_tokenizer)
    chooser = random.Random(0)
    broken = 0
    for _ in range(1500):
        contents = _random_contents(chooser)
        encoded = encode(record(*contents), special_tokenizer, template, P, 100_000)
        ids, labels = _oracle(special_tokenizer, contents)
        assert encoded.input_ids.tolist() == ids, contents
        assert encoded.labels.tolist() == labels, contents
        assert encoded.num_supervised == sum(label != -100 for label in labels)
        broken += any("</s>" in content for content in contents)
    assert broken > 300


@pytest.mark.parametrize(
    ("conv_mode", "eos", "before_images", "after_images"),
    [
        ("vicuna_v1", "</s>", [], ["</s>"]),
        ("chatml", "</s>", ["<|im_start|>"], ["</s>", "<|im_start|>", "</s>"]),
        ("chatml", "<|im_end|>", ["<|im_start|>"], ["<|im_end|>", "<|im_start|>", "<|im_end|>"]),
    ],
)
def test_special_ids_are_the_templates_and_the_images(conv_mode, eos, before_images, after_images):
    tokenizer = tiny.tiny_tokenizer()
    strings = ["<image>", "<repo_name>", "<|im_start|>", "<|im_end|>", "e.", "lloh", "ohello"]
    tokenizer.add_special_tokens({"additional_special_tokens": strings, "eos_token": eos})
    template = template_for(conv_mode, tokenizer)
    chooser = random.Random(2)
    for _ in range(500):
        contents = _random_contents(chooser)
        wanted = ["<s>"]
        for asked in contents[::2]:
            images = ["<image>"] * (asked.count("<image>") * P)
            wanted += [*before_images, *images, *after_images]
        encoded = encode(record(*contents), tokenizer, template, P, 100_000)
        tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids.tolist())
        special = {token.content for token in tokenizer.added_tokens_decoder.values()}
        assert [token for token in tokens if token in special] == wanted, contents


def test_training_reads_what_generation_reads(special_tokenizer):
    template = template_for("vicuna_v1", special_tokenizer)
    processor = tiny.tiny_processor(template.jinja)
    chooser = random.Random(3)
    for _ in range(100):
        contents = _random_contents(chooser)
        turns = record(*contents).turns
        asked = [{"role": turn.role, "content": turn.content} for turn in turns[:-1]]
        prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
        wanted = special_tokenizer(prompt.replace("<image>", "<image>" * P)).input_ids
        encoded = encode(record(*contents), special_tokenizer, template, P, 100_000)
        assert encoded.input_ids[: len(wanted)].tolist() == wanted


def _trained_bpe(trim_offsets: bool):
    """A byte-level BPE with merges, pre-tokenised as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["A chat. USER: hello rectangle ASSISTANT: yes. None 照片 1,000 \n\n  é"] * 3
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = post_processors.ByteLevel(trim_offsets=trim_offsets)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("</s>", "<image>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_bpe_tokens_agree_with_byte_positions(trim_offsets):
    tokenizer = _trained_bpe(trim_offsets)
    template = template_for("vicuna_v1", tokenizer)
    byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
    chooser = random.Random(1)
    merged = 0
    for _ in range(400):
        contents = _random_contents(chooser)
        turns = record(*contents)
        encoded = encode(turns, tokenizer, template, 1, 100_000)
        plain = [{"role": turn.role, "content": turn.content} for turn in turns.turns]
        spans = template.spans(plain)
        flags = [span.is_target for span in spans for _ in span.text.encode()]
        position, text = 0, b""
        for id, label in zip(encoded.input_ids.tolist(), encoded.labels.tolist(), strict=True):
            token = tokenizer.convert_ids_to_tokens(id)
            special = token in ("</s>", "<image>")
            raw = token.encode() if special else bytes(byte_of[c] for c in token)
            assert label == (id if flags[position] else -100), (contents, token, position)
            position += len(raw)
            text += raw
            merged += len(raw) > 1
        assert text.decode() == "".join(span.text for span in spans)
        endings = encoded.input_ids.tolist().count(tokenizer.eos_token_id)
        assert endings == len(contents) // 2
    assert merged > 1000


class _Spans:
    def __init__(self, *spans):
        self.given = [Span(*span) for span in spans]

    def spans(self, turns):
        return self.given


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
    encoded = encode(record("Q", "A"), tokenizer, _Spans(("x", False), *spans), P, 100)
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
    encoded = encode(record("Q", "A"), tokenizer, _Spans(("A", True)), P, 100)
    assert encoded.input_ids.tolist()[0] == tokenizer.bos_token_id
    assert encoded.labels.tolist()[0] == -100
    assert encoded.num_supervised == 1
    with pytest.raises(BadRecord, match="no token of the answer is supervised"):
        encode(record("Q", "A"), _trained_bpe(False), _Spans(("A", True)), P, 100)


def _sentencepiece_like(legacy: bool):
    """Pieces as LLaMA's, with ``▁`` in front by Metaspace, or by LLaMA's legacy normalizer."""
    words = ["▁A", "▁chat", "▁USER:", "▁What", "?", "▁ASSISTANT", ":", "▁rectangle", "▁photo", "▁"]
    singles = [chr(code) for code in range(33, 127)] + ["\n", "照"]
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(word, -2.0) for word in words]
    pieces += [(single, -9.0) for single in singles if single not in words]
    model = Tokenizer(models.Unigram(pieces, unk_id=0))
    if legacy:
        model.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    model.post_processor = post_processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    model.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<image>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _targets(tokenizer, encoded):
    return tokenizer.convert_ids_to_tokens(encoded.labels[encoded.labels != -100].tolist())


@pytest.mark.parametrize("legacy", [False, True])
def test_llavas_vector(legacy):
    tokenizer = _sentencepiece_like(legacy)
    turns = record("<image>\nWhat?", "rectangle")
    encoded = encode(turns, tokenizer, VicunaLike(), 1, 100)
    assert _targets(tokenizer, encoded) == ["▁rectangle", "</s>"]
    assert encoded.labels[-2:].tolist() == encoded.input_ids[-2:].tolist()
    assert encoded.input_ids[0] == tokenizer.bos_token_id
    assert encoded.num_supervised == 2


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("caption", ["A photo", "照照"])
def test_plain_learns_the_caption_and_the_newline(legacy, caption):
    tokenizer = _sentencepiece_like(legacy)
    encoded = encode(record("<image>\nQ", caption), tokenizer, PlainLike(), P, 100)
    assert (encoded.input_ids == image_token_id(tokenizer)).sum() == P
    # All that follows the image, the prefix that legacy tokenizers put there included.
    assert encoded.labels[1 + P :].tolist() == encoded.input_ids[1 + P :].tolist()
    assert encoded.labels[: 1 + P].tolist() == [-100] * (1 + P)
    assert _targets(tokenizer, encoded)[-1] == "\n"


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
        encode(record("Q", "A"), tokenizer, _Spans(("QA", False)), P, 100)


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
