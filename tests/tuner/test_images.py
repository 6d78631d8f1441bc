"""Routers that send a whole sequence by its image (``route_by_image``)."""

import copy

import pytest
import torch
from peft import PeftModel
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import DynamicCache

from llava_mole import MoleConfig
from llava_mole.tuner import MoleLayer, balance_loss_of, routing_of, select_images
from llava_mole.tuner.images import ImageFinder
from tests.tuner import models

TOKENS = ("input_ids", "attention_mask")
BY_IMAGE = {"route_by_image": True, "balance_coef": 0.0}


@pytest.fixture
def model():
    return models.mole(models.llava(), **BY_IMAGE)


def inputs(**changes):
    batch = models.llava_batch()
    del batch["labels"]
    return {**batch, **changes}


def mixed():
    """Two images, and a text between them, padded on the left."""
    ids = torch.zeros(3, 9, dtype=torch.long)
    ids[0], ids[2] = models.llava_batch()["input_ids"]
    ids[1, 3:] = torch.tensor([1, 5, 6, 7, 8, 9])
    return inputs(input_ids=ids, attention_mask=(ids != 0).long())


def layers(model):
    return [module for module in model.modules() if isinstance(module, MoleLayer)]


def test_a_sequence_goes_where_the_mean_of_its_projected_image_says(model):
    batch = mixed()
    with torch.no_grad():
        model(**batch)
        llava = model.get_base_model().model
        # The projector itself, on each image by itself, and the first token's embedding.
        images = [
            torch.cat(list(llava.get_image_features(pixels[None]).pooler_output)).double().mean(0)
            for pixels in batch["pixel_values"]
        ]
        text = llava.get_input_embeddings().weight[1].double()
    routing = routing_of(model)
    assert routing.lengths.tolist() == [9, 6, 7]
    for layer, counts, probs in zip(layers(model), routing.counts, routing.probs, strict=True):
        weight = layer.mole_router["default"].weight.detach().double()
        for row, vector in enumerate((images[0], text, images[1])):
            logits = weight @ (vector / vector.square().mean().sqrt())
            expected = torch.zeros(3)
            expected[logits.argmax()] = routing.lengths[row]
            assert torch.equal(counts[row], expected)
            mean = probs[row].double() / routing.lengths[row]
            assert_close(mean, logits.softmax(0), rtol=1e-4, atol=1e-5)
    assert len(set(routing.counts.argmax(-1).flatten().tolist())) > 1


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


def test_what_follows_the_image_does_not_move_a_sequence(model):
    batch = inputs()
    with torch.no_grad():
        model(**batch)
        before = routing_of(model).counts.argmax(-1)
        other = batch["input_ids"].clone()
        other[:, -2:] = 30
        model(**{**batch, "input_ids": other})
    assert torch.equal(routing_of(model).counts.argmax(-1), before)


def test_a_row_is_routed_as_alone(model):
    batch = mixed()
    with torch.no_grad():
        logits = model(**batch).logits
        for row, image in ((0, 0), (1, None), (2, 1)):
            real = batch["attention_mask"][row].bool()
            alone = {"input_ids": batch["input_ids"][row, real][None]}
            if image is not None:
                alone["pixel_values"] = batch["pixel_values"][image][None]
            assert_close(model(**alone).logits[0], logits[row, real], rtol=1e-4, atol=1e-4)


def test_packed_segments_go_their_own_ways(model):
    batch = mixed()
    rows = [ids[mask.bool()] for ids, mask in zip(*map(batch.get, TOKENS), strict=True)]
    positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
    with torch.no_grad():
        model(**batch)
        expected = routing_of(model)
        model(
            input_ids=torch.cat(rows)[None],
            position_ids=positions,
            pixel_values=batch["pixel_values"],
            use_cache=False,
        )
    assert torch.equal(routing_of(model).counts, expected.counts)


def test_packed_by_a_mask_they_go_the_same_ways(model):
    batch = mixed()
    rows = [ids[mask.bool()] for ids, mask in zip(*map(batch.get, TOKENS), strict=True)]
    segment = torch.cat([torch.full((len(row),), n) for n, row in enumerate(rows)])
    mask = torch.tril(segment[:, None] == segment)
    arguments = {
        "input_ids": torch.cat(rows)[None],
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows])[None],
        "pixel_values": batch["pixel_values"],
        "use_cache": False,
    }
    with torch.no_grad():
        expected = model(**arguments).logits
        actual = model(**arguments, attention_mask=mask[None, None]).logits
    assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def gradients(model, batch, loss):
    model.zero_grad()
    loss(model(**batch)).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", [{"gate_scaling": "prob"}, {"routing": "dense"}])
def test_gradients_are_the_loops(options):
    """Also with gradient checkpointing, whose layers run again when the forward is long over."""
    options |= {**BY_IMAGE, "modules_to_save": ["multi_modal_projector"]}
    found = {}
    for dispatch in ("loop", "auto", "checkpointed"):
        model = models.mole(
            models.llava(), **options, dispatch="loop" if dispatch == "loop" else "auto"
        ).train()
        if dispatch == "checkpointed":
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
            model.enable_input_require_grads()
        found[dispatch] = gradients(model, models.llava_batch(), lambda output: output.loss)
    assert sum("mole_router" in name for name in found["loop"]) == 2
    for name, expected in found["loop"].items():
        assert expected.any(), name
        for dispatch in ("auto", "checkpointed"):
            assert_close(found[dispatch][name], expected, rtol=1e-3, atol=1e-6, msg=name)


def test_the_routers_gradient_reaches_the_projector():
    model = models.mole(models.llava(), **BY_IMAGE, modules_to_save=["multi_modal_projector"])
    model.train()(**inputs())
    routing_of(model).probs[..., 0].sum().backward()
    projector = [p for n, p in model.named_parameters() if "modules_to_save" in n]
    assert len(projector) == 4
    assert all(p.grad.any() for p in projector)


def checkpointing(on, **options):
    options = {**BY_IMAGE, "gate_scaling": "prob", "modules_to_save": ["multi_modal_projector"]}
    model = models.mole(models.llava(), **options).train()
    if on:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def other_images():
    return {**models.llava_batch(), "pixel_values": models.llava_batch()["pixel_values"].flip(0)}


def two_forwards_and_one_backward(model):
    loss = model(**models.llava_batch()).loss
    (loss + 2 * model(**other_images()).loss).backward()


def only_the_first_is_learnt_from(model):
    loss = model(**models.llava_batch()).loss
    model(**other_images())
    loss.backward()


def a_reference_model_in_between(model):
    loss = model(**models.llava_batch()).loss
    with torch.no_grad(), model.disable_adapter():
        model(**other_images())
    loss.backward()


def two_backwards_of_one_forward(model):
    loss = model(**models.llava_batch()).loss
    loss.backward(retain_graph=True)
    (2 * loss).backward()


@pytest.mark.parametrize(
    "steps",
    [
        two_forwards_and_one_backward,
        only_the_first_is_learnt_from,
        a_reference_model_in_between,
        two_backwards_of_one_forward,
    ],
)
def test_a_layer_that_runs_again_for_backward_has_its_own_forwards_images(steps):
    found = []
    for on in (False, True):
        model = checkpointing(on)
        steps(model)
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert sum("mole_router" in name for name in found[0]) == 2
    for name, expected in found[0].items():
        assert_close(found[1][name], expected, rtol=1e-3, atol=1e-6, msg=name)


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


def test_routers_learn_to_tell_images_apart(model):
    """From the probabilities alone, as by the domain loss: nothing else gives them a gradient."""
    model.train()
    batch = inputs()
    for layer in layers(model):
        torch.nn.init.zeros_(layer.mole_router["default"].weight)
    routers = [p for n, p in model.named_parameters() if "mole_router" in n]
    optimizer = torch.optim.Adam(routers, 0.05)
    for _ in range(30):
        model(**batch)
        routing = routing_of(model)
        probs = routing.probs / routing.lengths[:, None]
        loss = F.nll_loss(probs.log().flatten(0, 1), torch.tensor([2, 1, 2, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model(**batch)
    assert routing_of(model).counts.argmax(-1).tolist() == [[2, 1], [2, 1]]


def test_balance_over_sequences_is_that_of_their_probabilities():
    model = models.mole(models.llava(), route_by_image=True, balance_scope="micro_batch")
    with torch.no_grad():
        model(**inputs())
    routing = routing_of(model)
    counts, probs = routing.counts.sum(1).double(), routing.probs.sum(1).double()
    tokens = routing.lengths.sum().double()
    expected = (3 * (counts / tokens) * (probs / tokens)).sum(-1).mean()
    assert_close(balance_loss_of(model).double(), 1e-2 * expected, rtol=1e-5, atol=1e-8)


def test_saves_and_loads(model, tmp_path):
    batch = inputs()
    expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(models.llava(), tmp_path).eval()
    assert loaded.peft_config["default"].route_by_image is True
    assert_close(loaded(**batch).logits, expected)


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


def test_a_video_is_an_image():
    base = models.llava()
    base.config.video_token_id = 62
    model = models.mole(base, **BY_IMAGE)
    found = []
    for last in (8, 62):
        with torch.no_grad():
            model(input_ids=torch.tensor([[1, 5, 6, 7, last]]))
        found.append(routing_of(model).probs)
    assert not torch.equal(*found)


def test_no_ids_are_kept_between_forwards(model):
    for one in (model, models.mole(models.llava())):
        one(**inputs())
        hooks = one.base_model.model._forward_pre_hooks.values()
        (finder,) = {hook.__self__ for hook in hooks if isinstance(hook.__self__, ImageFinder)}
        assert finder.take_ids() is None


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


def test_embeddings_without_ids_are_refused_unless_the_adapter_is_off(model):
    embeddings = model.get_input_embeddings()(torch.tensor([[5, 6]]))
    with pytest.raises(ValueError, match="call the whole model, with input_ids"):
        model(inputs_embeds=embeddings)
    with model.disable_adapter():
        model(inputs_embeds=embeddings)


def test_an_ffn_by_itself_is_refused(model):
    with pytest.raises(ValueError, match="outside its model's forward"):
        layers(model)[0](torch.randn(1, 3, models.WIDTH))


def test_a_model_without_images_is_refused():
    with pytest.raises(ValueError, match="LlamaForCausalLM reads no images"):
        models.mole(models.decoder(), **BY_IMAGE)


def test_balance_within_a_sequence_is_refused():
    with pytest.raises(ValueError, match="balance_scope='global_batch'"):
        MoleConfig(route_by_image=True)
    MoleConfig(route_by_image=True, balance_scope="global_batch")


def test_a_second_adapter_may_route_by_token(model):
    batch = inputs()
    model.add_adapter("tokens", MoleConfig(num_experts=3, r=4))
    models.randomize(model)
    model.set_adapter("tokens")
    with torch.no_grad():
        model(**batch)
        assert (routing_of(model).counts > 0).sum(-1).max() > 1
        model.set_adapter("default")
        model(**batch)
    assert (routing_of(model).counts > 0).sum(-1).max() == 1
