"""Answers from a key-value cache go where their prompt's image sent them."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import DynamicCache

from llava_mole.tuner import routing_of, select_images
from tests.tuner import models
from tests.tuner.by_image import BY_IMAGE, inputs, mixed


@pytest.fixture
def model():
    return models.mole(models.llava(), **BY_IMAGE)


@pytest.mark.parametrize("dispatch", ["auto", "fused", "loop", "masked"])
@pytest.mark.parametrize("options", [{}, {"gate_scaling": "prob"}, {"routing": "dense"}])
def test_generating_with_a_cache_equals_generating_without(options, dispatch):
    model = models.mole(models.llava(), **BY_IMAGE, **options, dispatch=dispatch)
    generate = {**mixed(), "max_new_tokens": 6, "do_sample": False}
    expected = model.generate(**generate, use_cache=False)
    assert torch.equal(model.generate(**generate), expected)
    beams = model.generate(**generate, num_beams=3, num_return_sequences=3)
    assert torch.equal(
        beams, model.generate(**generate, num_beams=3, num_return_sequences=3, use_cache=False)
    )


def test_a_static_cache_and_its_masks_give_the_same_answers(model):
    """Their 4-D masks say what is padding, which a text's first token is not."""
    generate = {**mixed(), "max_new_tokens": 6, "do_sample": False}
    expected = model.generate(**generate)
    static = model.generate(**generate, cache_implementation="static", disable_compile=True)
    assert torch.equal(static, expected)


def test_an_image_token_in_an_answer_is_a_token(model):
    """Nobody asks for one, but a sampler may draw it."""
    cache = prefill(model)
    image_token = torch.tensor([[models.VOCAB - 1], [11]])
    before = routing_of(model).counts.argmax(-1)
    step(model, cache, image_token)
    assert torch.equal(routing_of(model).counts.argmax(-1), before)


def test_a_text_whose_first_token_has_no_embedding_is_begun_all_the_same(model):
    embeddings = model.get_input_embeddings()
    with torch.no_grad():
        embeddings.weight[1] = 0
    ids = torch.tensor([[1, 5, 6, 7]])
    generate = {"max_new_tokens": 3, "do_sample": False}
    expected = model.generate(input_ids=ids, use_cache=False, **generate)
    assert torch.equal(model.generate(input_ids=ids, **generate), expected)
    assert torch.equal(model.generate(input_ids=ids, prefill_chunk_size=2, **generate), expected)


def prefill(model):
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.no_grad():
        model(**inputs(), past_key_values=cache, use_cache=True)
    return cache


def step(model, cache, tokens, rows=(0, 1)):
    """The next token's logits, with the padding of the prefill's rows masked as there."""
    mask = F.pad(models.llava_batch()["attention_mask"], (0, 1), value=1)[torch.as_tensor(rows)]
    with torch.no_grad():
        return model(
            input_ids=tokens,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).logits


def test_each_cache_remembers_its_own_images(model):
    """Two conversations in turn, and a copied cache."""
    tokens = torch.tensor([[11], [12]])
    first = prefill(model)
    copied = copy.deepcopy(first)
    expected = step(model, first, tokens)
    with torch.no_grad():
        flipped = inputs()["pixel_values"].flip(0)
        model(**inputs(pixel_values=flipped))  # another conversation between the two
    assert torch.equal(step(model, copied, tokens), expected)


def test_selected_rows_of_a_cache_keep_their_images(model):
    expected = step(model, prefill(model), torch.tensor([[11], [11]]))
    cache, rows = prefill(model), torch.tensor([1, 0, 0])
    tokens = torch.tensor([[11]] * 3)
    cache.batch_select_indices(rows)
    with pytest.raises(ValueError, match=r"select_images\(cache, rows\)"):
        step(model, copy.deepcopy(cache), tokens, rows)
    select_images(cache, rows)
    assert_close(step(model, cache, tokens, rows), expected[rows], rtol=1e-4, atol=1e-5)


def test_rows_that_change_places_take_their_images_along(model):
    tokens, rows = torch.tensor([[11], [12]]), torch.tensor([1, 0])
    expected = step(model, prefill(model), tokens)
    cache = prefill(model)
    cache.reorder_cache(rows)
    select_images(cache, rows)
    assert_close(step(model, cache, tokens[rows], rows), expected[rows], rtol=1e-4, atol=1e-5)


def test_a_cache_that_inference_mode_filled_serves_a_step_with_gradients(model):
    with torch.inference_mode():
        cache = prefill(model)
    for layer in cache.layers:  # transformers' own part of it
        layer.keys, layer.values = layer.keys.clone(), layer.values.clone()
    model(input_ids=torch.tensor([[11], [12]]), past_key_values=cache).logits.sum().backward()


def test_a_prompt_in_pieces_is_refused(model):
    ids, pixels = models.llava_batch()["input_ids"][:1], inputs()["pixel_values"][:1]
    with pytest.raises(ValueError, match="in one piece"):
        model.generate(input_ids=ids, pixel_values=pixels, max_new_tokens=2, prefill_chunk_size=4)
    padded = torch.tensor([[0, 0, 0, 1, 5, 6, 7], [1, 5, 6, 7, 8, 9, 10]])
    with pytest.raises(ValueError, match="in one piece"):
        model.generate(
            input_ids=padded,
            attention_mask=(padded != 0).long(),
            max_new_tokens=2,
            prefill_chunk_size=3,
        )


def test_an_image_in_a_later_turn_of_a_cached_conversation_is_refused(model):
    ids, pixels = models.llava_batch()["input_ids"][:1], inputs()["pixel_values"][:1]
    cache = DynamicCache(config=model.config.get_text_config())
    with torch.no_grad():
        model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)
        with pytest.raises(ValueError, match="begin with an empty cache"):
            model(input_ids=ids[:, 1:], pixel_values=pixels, past_key_values=cache)


def test_a_cache_that_says_nothing_of_images_is_refused(model):
    with model.disable_adapter(), torch.no_grad():
        embeddings = model.get_input_embeddings()(torch.tensor([[5, 6]]))
        cache = (
            model.get_base_model()
            .model.language_model(inputs_embeds=embeddings, use_cache=True)
            .past_key_values
        )
    with pytest.raises(ValueError, match="begin with an empty cache"):
        model(input_ids=torch.tensor([[7]]), past_key_values=cache)
