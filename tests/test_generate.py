"""Answers: batched equals single, cached equals recomputed, and bad turns are refused."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TextIteratorStreamer

from llava_mole.generate import answer, answers, encode_prompts
from llava_mole.model.templates import conversation, template_for
from tests import tiny


def image(seed, width=30, height=20):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def user(text):
    return {"role": "user", "content": text}


BATCH = [
    (image(0), [user("<image>\nWhat is this?")]),
    (image(1, 9, 50), [user("Hm")]),
    (None, [user("No image, but a rather long question about nothing at all?")]),
    (
        image(2),
        [user("What?\n<image>"), {"role": "assistant", "content": "A dog."}, user("Sure?")],
    ),
]


@pytest.fixture
def processor():
    return tiny.tiny_processor(conversation("vicuna_v1").jinja)


@pytest.fixture(params=["base", "mole"])
def model(request):
    """A tiny LLaVA, bare or with random experts."""
    model = tiny.tiny_llava()
    if request.param == "mole":
        model = tiny.random_mole(model)
    return model


def greedy_by_hand(model, processor, conversation, steps):
    """Argmax after argmax, each from a full forward without cache or padding."""
    inputs = dict(encode_prompts(processor, [conversation]))
    start = inputs["input_ids"].shape[1]
    with torch.no_grad():
        for _ in range(steps):
            logits = model(**inputs, use_cache=False).logits
            token = logits[:, -1].argmax(dim=-1, keepdim=True)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if token.item() == processor.tokenizer.eos_token_id:
                break
    return inputs["input_ids"][0, start:]


def text(processor, ids):
    return processor.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_batched_equals_single_equals_by_hand(model, processor):
    together = answers(model, processor, BATCH, max_new_tokens=16)
    one_by_one = [answer(model, processor, i, turns, max_new_tokens=16) for i, turns in BATCH]
    by_hand = [text(processor, greedy_by_hand(model, processor, c, 16)) for c in BATCH]
    assert together == one_by_one == by_hand
    assert len(set(together)) == len(BATCH)


def test_left_padding_keeps_the_logits(model, processor):
    batch = encode_prompts(processor, BATCH)
    assert (batch["attention_mask"][:, -1] == 1).all()
    with torch.no_grad():
        together = model(**batch).logits[:, -1]
        for row, one in zip(together, BATCH, strict=True):
            alone = model(**encode_prompts(processor, [one])).logits[0, -1]
            torch.testing.assert_close(row, alone, rtol=0, atol=5e-6)


def test_the_image_is_seen(llava, processor):
    one, two = ([(image(seed), [user("What?")])] for seed in (0, 7))
    with torch.no_grad():
        first, second = (llava(**encode_prompts(processor, c)).logits[0, -1] for c in (one, two))
    assert (first - second).abs().max() > 1e-3


def test_prompt_is_the_templates(processor):
    ids = encode_prompts(processor, [(image(0), [user("Q")])])["input_ids"][0]
    shown = processor.tokenizer.decode(ids)
    expected = conversation("vicuna_v1").text([user("<image>\nQ")])
    assert shown == "<s>" + expected.replace("<image>", "<image>" * 4)


def test_an_answer_ends_at_end_of_sequence(llava, processor):
    ids = greedy_by_hand(llava, processor, BATCH[0], 16).tolist()
    stop = next(i for i in range(2, 16) if ids[i] not in ids[:i])
    processor.tokenizer.eos_token = processor.tokenizer.convert_ids_to_tokens(ids[stop])
    out = answer(llava, processor, *BATCH[0], max_new_tokens=16)
    # The byte that stands in for </s> here is no special token, so it is decoded with the rest.
    assert out == text(processor, ids[: stop + 1])
    # A batch ends row by row.
    assert answers(llava, processor, BATCH[:2], max_new_tokens=16)[0] == out


def test_plain_ends_at_a_newline(llava):
    processor = tiny.tiny_processor(template_for("plain", tiny.tiny_tokenizer()).jinja)
    newline = processor.tokenizer("\n", add_special_tokens=False).input_ids[0]
    ids = greedy_by_hand(llava, processor, BATCH[0], 8).tolist()
    position = next(i for i in range(2, 8) if ids[i] not in ids[:i])
    # Swap the rows of the output head, so that the newline comes where another byte came.
    with torch.no_grad():
        weight = llava.lm_head.weight
        weight[[newline, ids[position]]] = weight[[ids[position], newline]]
    assert answer(llava, processor, *BATCH[0], max_new_tokens=8) == text(processor, ids[:position])


def test_streams_what_it_returns(llava, processor):
    streamer = TextIteratorStreamer(
        processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60
    )
    results = []
    thread = threading.Thread(
        target=lambda: results.append(
            answer(llava, processor, *BATCH[0], max_new_tokens=12, streamer=streamer)
        )
    )
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces).strip() == results[0]


def test_temperature_samples(llava, processor):
    def sample(seed):
        torch.manual_seed(seed)
        return answer(llava, processor, *BATCH[0], temperature=2.0, max_new_tokens=12)

    assert sample(0) == sample(0)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_training_mode_comes_back(llava, processor):
    llava.train()
    answer(llava, processor, *BATCH[0], max_new_tokens=1)
    assert llava.training


@pytest.mark.parametrize(
    ("picture", "turns", "match"),
    [
        (None, [user("<image>\nQ")], "1 <image> for 0 image"),
        (image(0), [user("<image><image>\nQ")], "2 <image> for 1 image"),
        (None, [], "must alternate"),
        (None, [user("Q"), {"role": "assistant", "content": "A"}], "first and last"),
        (None, [user("Q"), user("R")], "must alternate"),
        (None, [user("long " * 300)], r"takes \d+ tokens and the context is 1024"),
    ],
)
def test_bad_turns(llava, processor, picture, turns, match):
    with pytest.raises(ValueError, match=match):
        answer(llava, processor, picture, turns)


def test_plain_without_image(llava):
    processor = tiny.tiny_processor(conversation("plain").jinja)
    with pytest.raises(ValueError, match="reads images only"):
        answer(llava, processor, None, [user("Q")])


def test_the_answer_stays_within_the_context(llava, processor):
    question = "x" * (1024 - 200)
    length = encode_prompts(processor, [(None, [user(question)])])["input_ids"].shape[1]
    question += "x" * (1020 - length)
    generated = answer(llava, processor, None, [user(question)], max_new_tokens=50)
    assert len(generated.encode()) <= 3 * 4  # four tokens were left
