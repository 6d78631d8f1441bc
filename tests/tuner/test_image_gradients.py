"""How routers that read images learn, with gradient checkpointing too."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from llava_mole.tuner import routing_of
from tests.tuner import models
from tests.tuner.by_image import BY_IMAGE, inputs, layers


@pytest.fixture
def model():
    return models.mole(models.llava(), **BY_IMAGE)


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
