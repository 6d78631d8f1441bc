"""Questions about one image share its prefill, and answers stay what they are one by one."""

import pytest
import torch

from llava_mole.generate import answer, answers, encode_prompts
from llava_mole.model.templates import conversation
from llava_mole.tuner import routing_of
from tests import tiny
from tests.test_generate import image, user


@pytest.fixture(scope="module")
def processor():
    return tiny.tiny_processor(conversation("vicuna_v1").jinja)


@pytest.fixture(scope="module")
def model():
    return tiny.random_mole(tiny.tiny_llava())


def tokens_seen(model):
    """Lists that fill with images and tokens that go through the tower and the decoder."""
    base = model.get_base_model()
    images, tokens = [], []
    handles = [
        base.model.vision_tower.register_forward_hook(
            lambda m, args, kwargs, out: images.append(len([*args, *kwargs.values()][0])),
            with_kwargs=True,
        ),
        base.model.language_model.layers[0].register_forward_hook(
            lambda m, args, out: tokens.append(args[0].shape[0] * args[0].shape[1])
        ),
    ]
    return images, tokens, handles


def prompts(count, images=3, seed=0):
    """``count`` questions of different lengths about ``images`` images, mixed."""
    generator = torch.Generator().manual_seed(seed)
    pictures = [image(i, 20 + i, 30 - i) for i in range(images)]
    words = ["what", "colour", "shape", "is", "the", "big", "small", "red", "circle"]
    batch = []
    for n in range(count):
        picked = torch.randint(len(words), (int(torch.randint(1, 9, (1,), generator=generator)),),
                               generator=generator)  # fmt: skip
        batch.append((pictures[n % images], [user(" ".join(words[i] for i in picked) + "?")]))
    return batch


def test_two_hundred_prompts_answer_as_one_by_one(model, processor):
    batch = prompts(200, images=23)
    alone = [answer(model, processor, i, turns, max_new_tokens=12) for i, turns in batch]
    together = []
    for start in range(0, len(batch), 50):
        together += answers(model, processor, batch[start : start + 50], max_new_tokens=12)
    assert together == alone
    assert len(set(alone)) > 50


def test_images_that_choose_the_experts_are_shared_too(processor):
    """What the routers read of an image goes along with the keys and values that are repeated."""
    model = tiny.random_mole(tiny.tiny_llava(), route_by_image=True, balance_coef=0.0)
    batch = prompts(12, images=5)
    alone = [answer(model, processor, i, turns, max_new_tokens=12) for i, turns in batch]
    with torch.no_grad():
        model(**encode_prompts(processor, batch[:5]))
    assert len({tuple(row) for row in routing_of(model).counts.argmax(-1).T.tolist()}) > 1
    assert answers(model, processor, batch, max_new_tokens=12) == alone


def test_each_image_goes_through_the_model_once(model, processor):
    batch = prompts(12, images=2)
    lengths = encode_prompts(processor, batch)["attention_mask"].sum(1)
    images, tokens, handles = tokens_seen(model)
    answers(model, processor, batch, max_new_tokens=1)
    for handle in handles:
        handle.remove()
    assert images == [2]
    # Two prefixes, then twelve rests as long as the longest; what is left out is the prefix of ten.
    prefix = int(tokens[0] / 2)
    assert tokens[1:] == [12 * (int(lengths.max()) - prefix)]
    assert prefix > 4


@pytest.mark.parametrize(
    "odd",
    [
        (None, [user("no image")]),
        (image(0), [{"role": "system", "content": "You are brief."}, user("What?")]),
        (image(0), [user("A?\n<image>"), {"role": "assistant", "content": "a"}, user("B?")]),
        (image(0), [user("A?"), {"role": "assistant", "content": "a"}, user("and <image> B?")]),
    ],
    ids=["text", "system", "turns", "second turn"],
)
def test_prompts_that_share_nothing_are_answered_too(model, processor, odd):
    batch = [*prompts(3, images=1), odd, *prompts(2, images=2)]
    if odd[0] is not None:
        batch.append(odd)
    alone = [answer(model, processor, i, turns, max_new_tokens=10) for i, turns in batch]
    assert answers(model, processor, batch, max_new_tokens=10) == alone


def test_the_longest_prompt_decides_what_fits_not_the_padding(model, processor):
    batch = prompts(6, images=2)
    longest = int(encode_prompts(processor, batch)["attention_mask"].sum(1).max())
    processor.tokenizer.model_max_length = longest + 3
    try:
        short = answers(model, processor, batch, max_new_tokens=50)
        assert all(len(text.encode()) <= 12 for text in short)
        processor.tokenizer.model_max_length = longest
        with pytest.raises(ValueError, match=f"takes {longest} tokens"):
            answers(model, processor, batch)
    finally:
        processor.tokenizer.model_max_length = 1024


def penalised_by_hand(model, processor, prompt, steps):
    """A loop over logits without cache, the penalty on what was said so far alone."""
    inputs = dict(encode_prompts(processor, [prompt]))
    length = inputs["input_ids"].shape[1]
    with torch.no_grad():
        for _ in range(steps):
            scores = model(**inputs, use_cache=False).logits[:, -1].float()
            for token in set(inputs["input_ids"][0, length:].tolist()):
                value = scores[0, token]
                scores[0, token] = value * 10 if value < 0 else value / 10
            token = scores.argmax(-1, keepdim=True)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if token.item() == processor.tokenizer.eos_token_id:
                break
    return inputs["input_ids"][0, length:]


def test_the_penalty_is_on_the_answer_alone(model, processor):
    batch = prompts(24, images=3)
    options = {"max_new_tokens": 8, "repetition_penalty": 10.0}
    said = answers(model, processor, batch, **options)
    whole = []
    for prompt, text in zip(batch, said, strict=True):
        ids = penalised_by_hand(model, processor, prompt, 8)
        assert text == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        # What transformers does with the option of this name: the prompt's tokens count too.
        inputs = encode_prompts(processor, [prompt])
        out = model.generate(
            **inputs, max_new_tokens=8, do_sample=False, repetition_penalty=10.0,
            pad_token_id=processor.tokenizer.pad_token_id,
        )[0, inputs["input_ids"].shape[1] :]  # fmt: skip
        whole.append(processor.tokenizer.decode(out, skip_special_tokens=True).strip())
    assert said != whole
    assert said != answers(model, processor, batch, max_new_tokens=8)
