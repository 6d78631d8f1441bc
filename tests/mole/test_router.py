import pytest
import torch
from torch.testing import assert_close

from llava_mole.mole import Router, route
from llava_mole.mole.router import _RouterLogits
from tests.mole import oracle


def test_logits_and_gradients_equal_a_linear():
    torch.manual_seed(0)
    router = Router(12, 3, bias=True)
    torch.nn.init.normal_(router.bias)
    x = torch.randn(7, 12, requires_grad=True)
    grad = torch.randn(7, 3)
    (router(x) * grad).sum().backward()
    expected = [x.grad.clone(), router.weight.grad.clone(), router.bias.grad.clone()]
    x.grad = router.weight.grad = router.bias.grad = None
    logits = torch.nn.functional.linear(x, router.weight, router.bias)
    assert_close(router(x), logits)
    (logits * grad).sum().backward()
    for a, e in zip((x.grad, router.weight.grad, router.bias.grad), expected, strict=True):
        assert_close(a, e)


def test_gradcheck():
    router = Router(5, 3).double()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)

    def logits(x, weight):
        return _RouterLogits.apply(x, weight)

    assert torch.autograd.gradcheck(logits, (x, router.weight))


@pytest.mark.parametrize("cast_router", [False, True])
def test_float32_under_bfloat16_and_autocast(cast_router):
    torch.manual_seed(0)
    router = Router(64, 4)
    if cast_router:
        router = router.to(torch.bfloat16)
    x = torch.randn(9, 64).to(torch.bfloat16).requires_grad_()
    exact = x.detach().double() @ router.weight.detach().double().t()
    logits = router(x)
    assert logits.dtype == torch.float32
    assert_close(logits.double(), exact, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = router(x)
        chosen = route(logits, "prob")
        assert chosen.probs.dtype == torch.float32
        assert_close(logits.double(), exact, rtol=1e-5, atol=1e-5)
        chosen.gate.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert router.weight.grad.dtype == router.weight.dtype
    assert router.weight.grad.any()


def test_bfloat16_input_is_saved_as_it_came():
    router = Router(64, 4)
    x = torch.randn(9, 64, dtype=torch.bfloat16, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        router(x)
    assert not [t for t in saved if t.shape == x.shape and t.dtype == torch.float32]


def test_ties_go_to_the_lowest_index():
    logits = torch.tensor([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0], [0.0, -1.0, 0.0], [-5.0, 1.0, 1.0]])
    assert route(logits).choice.tolist() == [1, 0, 0, 1]
    assert route(logits).choice.tolist() == [oracle.first_argmax(row) for row in logits]


@pytest.mark.parametrize("gate_scaling", ["prob", "straight_through"])
def test_gate_and_its_gradient(gate_scaling):
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, dtype=torch.float64)
    chosen = route(logits, gate_scaling)
    if gate_scaling == "straight_through":
        assert torch.equal(chosen.gate, torch.ones(6, dtype=torch.float64))
    (chosen.gate * weight).sum().backward()

    # d p_k / d logit_j = p_k (1[j = k] - p_j), by hand
    for t in range(6):
        p = oracle.softmax(logits[t].detach())
        k = oracle.first_argmax(logits[t].detach())
        for j in range(3):
            expected = weight[t] * p[k] * (float(j == k) - p[j])
            assert logits.grad[t, j].item() == pytest.approx(expected.item(), abs=1e-12)


def test_gate_none_is_no_tensor():
    assert route(torch.zeros(2, 3)).gate is None
    with pytest.raises(ValueError, match="gate_scaling='softmax'"):
        route(torch.zeros(2, 3), "softmax")


def test_init_is_small_and_breaks_ties():
    torch.manual_seed(0)
    router = Router(256, 8)
    assert router.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert router.bias is None
    assert len(set(route(router(torch.randn(200, 256))).choice.tolist())) == 8
