"""Labels against oracles that never look at the tokenizer's offsets."""

import random

import pytest

from llava_mole.data.tokens.encode import encode
from llava_mole.model.templates import VICUNA_SYSTEM, template_for
from tests import tiny
from tests.data.helpers import record
from tests.data.tokens.vocabularies import byte_characters, byte_ids, random_contents, trained_bpe

P = 4
SPECIAL = ("<unk>", "<s>", "</s>", "<image>", "<pad>", "<repo_name>")


@pytest.fixture(scope="module")
def special_tokenizer():
    """The byte-level tokenizer with one more special token, as code models have."""
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<repo_name>"]})
    return tokenizer


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

    put(byte_ids(tokenizer, VICUNA_SYSTEM + " "), False)
    for index, content in enumerate(contents):
        if index % 2 == 0:
            put(byte_ids(tokenizer, "USER: "), False)
            pieces = content.split("<image>")
            text = _as_data("".join(pieces))
            text = text.strip() if len(pieces) > 1 else text
            for left in range(len(pieces) - 1, 0, -1):
                put([tiny.IMAGE_TOKEN_ID] * P, False)
                put(byte_ids(tokenizer, "\n" if left > 1 or text else ""), False)
            put(byte_ids(tokenizer, text + " ASSISTANT:"), False)
        else:
            put([*byte_ids(tokenizer, " " + _as_data(content)), 2], True)
    return ids, [id if flag else -100 for id, flag in zip(ids, target, strict=True)]


def test_byte_tokens_agree_with_the_oracle_on_random_conversations(special_tokenizer):
    template = template_for("vicuna_v1", special_tokenizer)
    chooser = random.Random(0)
    broken = 0
    for _ in range(1500):
        contents = random_contents(chooser)
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
        contents = random_contents(chooser)
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
        contents = random_contents(chooser)
        turns = record(*contents).turns
        asked = [{"role": turn.role, "content": turn.content} for turn in turns[:-1]]
        prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
        wanted = special_tokenizer(prompt.replace("<image>", "<image>" * P)).input_ids
        encoded = encode(record(*contents), special_tokenizer, template, P, 100_000)
        assert encoded.input_ids[: len(wanted)].tolist() == wanted


@pytest.mark.parametrize("trim_offsets", [False, True])
def test_bpe_tokens_agree_with_byte_positions(trim_offsets):
    tokenizer = trained_bpe(trim_offsets)
    template = template_for("vicuna_v1", tokenizer)
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    chooser = random.Random(1)
    merged = 0
    for _ in range(400):
        contents = random_contents(chooser)
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
