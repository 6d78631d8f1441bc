"""A decode step's short cut against the method token by token in float64."""

from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from llava_mole.mole import LoraExperts, OneToken, Router
from tests.mole import oracle

D, D_OUT, R, SCALING = 16, 24, 4, 2.0


def config(**changes):
    fields = {"num_experts": 3, "routing": "top1", "dispatch": "auto", "gate_scaling": "none"}
    return SimpleNamespace(**(fields | changes))


def layer(K=3, bias=False):
    router, experts = Router(D, K, bias), LoraExperts(D, D_OUT, K, R, SCALING)
    with torch.no_grad():
        for parameter in (*router.parameters(), *experts.parameters()):
            parameter.normal_()
    return router, experts


@pytest.mark.parametrize("gate_scaling", ["none", "prob", "straight_through"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_equals_the_oracle(mode, bias, gate_scaling):
    router, experts = layer(bias=bias)
    chosen = set()
    with mode():
        for x in torch.randn(12, 1, 1, D):
            one = OneToken.of(x, router, config(gate_scaling=gate_scaling))
            scores = x[0].double() @ router.weight.double().t()
            scores = scores[0] if not bias else scores[0] + router.bias.double()
            expert = oracle.first_argmax(scores)
            assert one.expert == expert
            assert one.route.choice.tolist() == [expert]
            probs = oracle.softmax(scores)
            assert_close(one.route.probs[0].double(), probs, rtol=1e-5, atol=1e-6)
            gate = oracle.gate_values(probs[None], [expert], gate_scaling)
            A, B = experts.A.double(), experts.B.double()
            expected = oracle.experts(x[0].double(), A, B, [expert], gate, SCALING)
            y = one.apply(x, experts)
            assert y.shape == (1, 1, D_OUT)
            assert_close(
                y[0].double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
            )
            chosen.add(expert)
    assert chosen == {0, 1, 2}


def test_experts_of_another_dtype_get_their_own():
    router, experts = layer()
    x = torch.randn(1, D)
    with torch.no_grad():
        exact = OneToken.of(x, router, config()).apply(x, experts)
        y = OneToken.of(x, router, config()).apply(x, experts.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))


def test_anything_else_takes_the_long_way():
    router, _ = layer()
    x = torch.randn(1, 1, D)
    assert OneToken.of(x, router, config()) is None  # gradients are on
    with torch.no_grad():
        assert OneToken.of(x, router, config()) is not None
        assert OneToken.of(x.expand(2, 1, D), router, config()) is None
        assert OneToken.of(x.bfloat16(), router, config()) is None
        assert OneToken.of(x.double(), router, config()) is None
        assert OneToken.of(x.to("meta"), router, config()) is None
        assert OneToken.of(x, router, config(routing="dense")) is None
        assert OneToken.of(x, router, config(num_experts=1)) is None
        for path in ("loop", "masked", "grouped"):
            assert OneToken.of(x, router, config(dispatch=path)) is None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert OneToken.of(x, router, config()) is None
