"""Counted operations against torch's own counter on what really runs."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from llava_mole.bench.step.operations import operations_of
from llava_mole.config import from_dict
from llava_mole.data.tokens.encode import IGNORE_INDEX
from llava_mole.model.build import build_model
from llava_mole.train.adapter import attach
from llava_mole.train.config import RunConfig
from tests.tiny import IMAGE_TOKEN_ID, NUM_IMAGE_TOKENS, tiny_model_section
from tests.train.tiny_run import run_values


def config_of(folder, **adapter):
    values = run_values(folder)
    values["model"] = tiny_model_section(folder)
    values["model"]["language_config"] |= {"hidden_size": 64, "intermediate_size": 192}
    values["model"]["attn_implementation"] = "eager"
    values["adapter"] |= {"lora_dropout": 0.0, **adapter}
    return from_dict(RunConfig, values, "test")


def run_step(model, length, images):
    """Operations of a forward and backward of one sample, half of whose text is supervised."""
    torch.manual_seed(0)
    ids = torch.randint(3, 200, (1, length))
    ids[0, 1 : 1 + images * NUM_IMAGE_TOKENS] = IMAGE_TOKEN_ID
    keep = torch.arange(length // 2, length - 1)
    inputs = {"input_ids": ids, "pixel_values": torch.randn(images, 3, 28, 28)}
    with FlopCounterMode(display=False) as counter:
        logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits
        torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[0, 1:][keep], ignore_index=IGNORE_INDEX
        ).backward()
    return counter.get_total_flops(), len(keep)


@pytest.mark.parametrize("length", [40, 120])
@pytest.mark.parametrize("images", [1, 3])
def test_a_plain_lora_step(tmp_path, length, images):
    config = config_of(tmp_path, type="lora", r=8, lora_alpha=16)
    model = attach(build_model(config.model), config).train()
    counted, targets = run_step(model, length, images)
    operations = operations_of(model, config.adapter)
    (expected,) = operations.of(
        np.array([length]), np.array([targets]), np.array([images]), causal=False
    )
    # Rotary angles are a tiny matrix product too.
    assert expected == pytest.approx(counted, rel=5e-3)
    without = operations.of(
        np.array([length]), np.array([targets]), np.array([images]), tower=False, causal=False
    )
    assert expected - without == operations.tower * images


def test_half_of_the_pairs_are_causal(tmp_path):
    config = config_of(tmp_path, type="lora")
    operations = operations_of(attach(build_model(config.model), config), config.adapter)
    none = np.zeros(1)
    whole, half = (operations.of([64], none, none, causal=c) for c in (False, True))
    assert whole - half == operations.pair * (64**2 - 64 * 65 / 2)


def test_shapes_alone_give_the_same_and_a_token_meets_one_expert(tmp_path):
    found = {}
    for adapter in ({"type": "lora"}, {"num_experts": 2}, {"num_experts": 8}):
        config = config_of(tmp_path, r=8, lora_alpha=16, **adapter)
        real, meta = (
            operations_of(attach(build_model(config.model, device), config), config.adapter)
            for device in ("cpu", "meta")
        )
        assert real.token == meta.token
        assert real.tower == meta.tower > 0
        assert real.projector == meta.projector
        found[config.adapter.num_experts if config.adapter.type == "mole" else 1] = real.token
    router = 6 * 64 * 2  # width, layers
    assert found[2] == found[1] + 2 * router
    assert found[8] == found[1] + 8 * router
