"""Routers that send a whole sequence by its image (``route_by_image``)."""

import copy

import pytest
import torch
from peft import PeftModel
from torch.testing import assert_close

from llava_mole import MoleConfig
from llava_mole.tuner import balance_loss_of, routing_of
from llava_mole.tuner.images import ImageHooks
from tests.tuner import models
from tests.tuner.by_image import BY_IMAGE, TOKENS, inputs, layers, mixed


@pytest.fixture
def model():
    return models.mole(models.llava(), **BY_IMAGE)


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
    model(**inputs())
    hooks = model.base_model.model._forward_pre_hooks.values()
    (own,) = [hook.__self__ for hook in hooks if isinstance(hook.__self__, ImageHooks)]
    assert own._token_ids is None


def test_routers_that_read_tokens_have_no_hooks_for_images():
    model = models.mole(models.llava())
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    assert hooks
    assert not any(isinstance(getattr(hook, "__self__", None), ImageHooks) for hook in hooks)


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


def test_a_copied_model_has_its_own_images(model):
    copied = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(**inputs()).logits
        flipped = inputs()["pixel_values"].flip(0)
        model(**inputs(pixel_values=flipped))
        assert torch.equal(copied(**inputs()).logits, expected)
