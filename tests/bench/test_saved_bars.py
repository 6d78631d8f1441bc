"""What MoLE may keep for the backward pass, at LLaVA-1.5-7B's widths: the same on any machine."""

import pytest

from llava_mole.bench.layer import Settings, memory


@pytest.fixture(scope="module")
def saved():
    """KiB a token; of few tokens, as only the number of the tokens counts."""
    return memory.kib_per_token(Settings(saved_tokens=16))


@pytest.mark.parametrize(
    ("num_experts", "bar", "most"),
    [(3, "PEFT", 0.55), (2, "dense K=2", 0.25), (3, "dense K=3", 0.20)],
)
def test_bars(saved, num_experts, bar, most):
    assert saved[f"MoLE K={num_experts}"] <= most * saved[bar]


def test_no_growth_with_experts(saved):
    assert saved["MoLE K=16"] <= 1.01 * saved["MoLE K=2"]


def test_the_others_are_as_known(saved):
    known = {
        "frozen": 64.5,
        "PEFT": 94.2,
        "PEFT, float32 adapters": 139.9,
        "PEFT default": 214.9,
        "dense K=2": 212,
        "dense K=3": 264,
        "dense K=8": 520,
        "dense K=16": 929,
    }
    for name, kib in known.items():
        assert saved[name] == pytest.approx(kib, rel=5e-3), name
