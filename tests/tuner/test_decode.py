"""Decode steps take short cuts; the loop over experts in the same model is the reference."""

import pytest
import torch
from peft import get_peft_model
from torch.testing import assert_close

from llava_mole import MoleConfig
from llava_mole.tuner import MoleLayer, balance_loss_of, routing_of
from tests.tuner import models


def decode(model, ids, dispatch, mode=torch.inference_mode):
    """Logits of every position, one token at a time after the first three, and all routings."""
    for config in model.peft_config.values():
        config.dispatch = dispatch
    logits, counts = [], []
    with mode():
        output = model(ids[:, :3], use_cache=True)
        for step in range(3, ids.shape[1]):
            token = ids[:, step : step + 1]
            output = model(token, past_key_values=output.past_key_values, use_cache=True)
            logits.append(output.logits)
            counts.append(routing_of(model, "default").counts)
    return torch.cat(logits, 1), torch.stack(counts)


def compare(model, rows, atol=1e-5):
    ids = models.batch(rows)
    expected, routes = decode(model, ids, "loop")
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        logits, counts = decode(model, ids, "auto", mode)
        assert torch.equal(counts, routes)
        scale = float(expected.abs().max())
        assert_close(logits.float() / scale, expected.float() / scale, rtol=0, atol=atol)
    return routes


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("family", models.FAMILIES)
def test_every_family_decodes_as_by_the_loop(family, rows):
    routes = compare(models.mole(models.decoder(family)), rows)
    assert routes.sum((0, 1, 2)).count_nonzero() > 1  # not all by one expert


@pytest.mark.parametrize(
    "options",
    [
        {"gate_scaling": "prob"},
        {"gate_scaling": "straight_through"},
        {"router_bias": True},
        {"num_experts": 1},
        {"num_experts": 1, "gate_scaling": "prob"},
        {"num_experts": 8, "r": 32},
        {"routing": "dense"},
        {"lora_dropout": 0.5},
    ],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_every_option_decodes_as_by_the_loop(rows, options):
    compare(models.mole(models.decoder(), **options), rows)


def test_a_bfloat16_base_decodes_as_by_the_loop():
    compare(models.mole(models.decoder().bfloat16()), 1, atol=0.02)


def test_two_adapters_decode_as_by_the_loop():
    model = models.mole(models.decoder())
    model.add_adapter("other", MoleConfig(num_experts=2, r=4, gate_scaling="prob"))
    models.randomize(model)
    model.base_model.set_adapter(["default", "other"])
    compare(model.eval(), 1)


def test_dropout_in_training_reaches_a_single_token():
    model = get_peft_model(models.decoder(), MoleConfig(r=4, lora_dropout=0.5))
    models.randomize(model)
    ids = models.batch(1, 1)
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, model(ids).logits)
        model.train()
        layer = next(m for m in model.modules() if isinstance(m, MoleLayer))
        x = torch.randn(1, 1, models.WIDTH)
        assert not torch.equal(layer(x), layer(x))


def test_who_asks_first_without_gradients_takes_none_away():
    model = models.mole(models.decoder())
    model(models.batch())
    with torch.inference_mode():
        counts = routing_of(model).counts
    assert torch.equal(routing_of(model).counts, counts)
    balance_loss_of(model).backward()
    assert all(p.grad.any() for n, p in model.named_parameters() if "mole_router" in n)
