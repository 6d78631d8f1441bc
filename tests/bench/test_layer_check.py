"""The layer benchmark's arms against its oracle, that against the tests' own; refusals."""

import re

import pytest
import torch
from torch.nn import functional as F

from llava_mole.bench.layer import arms, check, others, product
from llava_mole.bench.layer.oracle import answer
from llava_mole.bench.layer.weights import DOWN, GATE, LINEARS, UP, Weights
from llava_mole.mole import LoraExperts
from tests.mole import oracle

SHAPE, K, T = (16, 24), 3, 9


@pytest.fixture
def weights():
    return Weights.draw(SHAPE, K, 4, torch.float64)


def relative(found, wanted):
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("dense", [False, True])
def test_the_oracle_agrees_with_the_tests_own(weights, dense):
    x = weights.tokens(T)
    dy = check.normal_like(x)
    expected = answer(weights, x, dy, dense)
    names = ["router", *(f"{name}.{part}" for name in LINEARS for part in "AB")]
    leaves = {name: weights.leaf(name).clone().requires_grad_() for name in names}
    leaves["x"] = x.clone().requires_grad_()
    rows = leaves["x"][0]
    probs = torch.stack([oracle.softmax(row) for row in rows @ leaves["router"].T])
    choice = [oracle.first_argmax(row) for row in probs.tolist()]
    assert choice == expected.choice
    assert len(set(choice)) > 1

    def linear(name, v):
        a, b = leaves[f"{name}.A"], leaves[f"{name}.B"]
        base = v @ weights.base[name].T
        if dense:
            return base + oracle.dense_experts(v, a, b, probs, weights.scaling)
        return base + oracle.experts(v, a, b, choice, [1.0] * T, weights.scaling)

    y = linear(DOWN, F.silu(linear(GATE, rows)) * linear(UP, rows))
    assert relative(expected.y[0], y.detach()) < 1e-13
    grads = torch.autograd.grad(
        (y * dy[0]).sum(), list(leaves.values()), retain_graph=True, materialize_grads=True
    )
    for name, grad in zip(leaves, grads, strict=True):
        assert (expected.gradients[name] - grad).abs().max() <= 1e-13 * grad.abs().max(), name
    if not dense:
        loss = 1e-2 * oracle.balance([choice], [probs], [0] * T, K, "switch", "sequence")
        for name in ("x", "router"):
            (grad,) = torch.autograd.grad(loss, leaves[name], retain_graph=True)
            assert relative(expected.balance_gradients[name], grad) < 1e-13
    else:
        assert expected.balance_gradients == {}


def test_every_arm_is_what_it_should_be(monkeypatch):
    compared = []
    equal = check._equal
    monkeypatch.setattr(check, "_equal", lambda *args: compared.append(args[:2]) or equal(*args))
    check.check_exactly(Weights.draw(SHAPE, K, 4, torch.float64), (2, K))
    seen = {name for name, _ in compared}
    for kind in arms.SPARSE:
        for routing in ("", ", an expert without tokens", ", all tokens to one expert"):
            assert f"{kind} K={K}{routing}" in seen
    assert {"PEFT", "MoLE K=1", "dense K=2", "dense as rank K=3"} <= seen
    mine = {what for name, what in compared if name == "MoLE K=3"}
    leaves = ["x", "router", *(f"{name}.{part}" for name in LINEARS for part in "AB")]
    assert mine == {"output", *(f"gradient of {leaf}" for leaf in leaves)} | {
        f"balance loss's gradient of {leaf}" for leaf in ("x", "router")
    }


def test_routings_are_steered(weights):
    x = weights.tokens(40)
    dy = torch.zeros_like(x)
    assert set(answer(weights, x, dy).choice) == {0, 1, 2}
    assert set(answer(weights.steered(2, towards=False), x, dy).choice) == {0, 1}
    assert set(answer(weights.steered(1, towards=True), x, dy).choice) == {1}


def wrong_scaling(monkeypatch):
    right = others.MaskLoop.lora
    monkeypatch.setattr(
        others.MaskLoop, "lora", lambda self, n, k, x: right(self, n, k, x) * (1 + 1e-11)
    )


def lost_tokens(monkeypatch):
    right = others.MixLora.mix
    monkeypatch.setattr(
        others.MixLora,
        "mix",
        lambda self, x, tokens: right(self, x, [*tokens[:-1], tokens[-1][1:]]),
    )


def no_balance_loss(monkeypatch):
    right = product.balance_loss_of
    monkeypatch.setattr(product, "balance_loss_of", lambda model: right(model) * 1.01)


def detached_weights(monkeypatch):
    right = others.Dense.probs
    monkeypatch.setattr(others.Dense, "probs", lambda self, x: right(self, x).detach())


def test_even_loads_leave_nothing_but_rounding_of_the_balance_loss():
    # 24 tokens, 8 for each expert: drawn so, the router's gradient is zero.
    weights = Weights.draw(SHAPE, K, 4, torch.float64)
    for seed in range(1000):
        x = weights.tokens(check._TOKENS, seed)
        choice = (x[0] @ weights.router.T).argmax(-1)
        if choice.bincount(minlength=K).tolist() == [8, 8, 8]:
            break
    expected = answer(weights, x, check.normal_like(x))
    tiny, all_of_it = (
        gradients["router"].abs().max()
        for gradients in (expected.balance_gradients, expected.lopsided_gradients)
    )
    assert tiny < 1e-15 < 1e-5 < all_of_it
    for kind in arms.SPARSE:
        check._compare(kind, arms.KINDS[kind](weights), x, check.normal_like(x), expected)


def test_a_mixture_without_balance_loss_is_refused(monkeypatch):
    right = product.Mole.__call__
    monkeypatch.setattr(product.Mole, "__call__", lambda self, x: (right(self, x)[0], None))
    with pytest.raises(RuntimeError, match=r"MoLE K=.: there is no balance loss; not timed"):
        check.check_exactly(Weights.draw(SHAPE, K, 4, torch.float64), (K,))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (wrong_scaling, "mask loop K=.: output differs"),
        (lost_tokens, "MixLoRA-style K=.: output differs"),
        (no_balance_loss, "MoLE K=.: balance loss's gradient of x differs"),
        (detached_weights, "dense K=.: gradient of .* differs"),
    ],
)
def test_a_wrong_arm_is_refused(mistake, message, monkeypatch):
    mistake(monkeypatch)
    with pytest.raises(RuntimeError, match=rf"{message} from the oracle's by .*; not timed"):
        check.check_exactly(Weights.draw(SHAPE, K, 4, torch.float64), (2, K))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_timed_is_compared_once_more(dtype, monkeypatch):
    weights = Weights.draw((64, 96), K, 8, dtype)
    made = {name: make() for name, make in arms.makers(weights, (1, K)).items()}
    x = weights.tokens(50).requires_grad_()
    dy = check.normal_like(x)
    check.check_together(made, (1, K), x, dy)
    made["MoLE K=3"].leaves["up_proj.B"].data[1] *= 1.5
    with pytest.raises(RuntimeError, match=r"MoLE K=3: .* differs from mask loop K=3's"):
        check.check_together(made, (K,), x, dy)


def test_the_decode_step_is_compared(monkeypatch):
    layers = [Weights.draw((64, 96), K, 8, torch.float32, seed=seed) for seed in range(2)]
    arm = product.Mole(*layers)
    arm.decoder.eval()
    tokens = layers[0].tokens(6)
    check.check_decode("MoLE", arm, layers, tokens)
    experts = [module for module in arm.decoder.modules() if isinstance(module, LoraExperts)]
    for linear in experts[-3:]:
        linear.scaling *= 1.01
    with pytest.raises(RuntimeError, match=re.escape("MoLE, FFN 1: output differs")):
        check.check_decode("MoLE", arm, layers, tokens)


def test_arms_share_the_base_and_train_their_experts(weights):
    x = weights.tokens(T).requires_grad_()
    for name, make in arms.makers(weights, (K,)).items():
        arm = make()
        for layer, weight in weights.base.items():
            assert any(p is weight for p in arm.parameters()), (name, layer)
        arm.train_step(x, torch.ones_like(x))
        assert all(weight.grad is None for weight in weights.base.values())
        trained = set(arm.gradients())
        assert trained == set(arm.leaves)
        assert len(trained) == (0 if name == "frozen" else 6 if "PEFT" in name else 7), name
        assert all(leaf.requires_grad for leaf in arm.trained())


def test_inputs_leave_no_doubt_about_the_expert():
    weights = Weights.draw((16, 24), 16, 2, torch.bfloat16)
    x = weights.tokens(2000)
    assert x.shape == (1, 2000, 16)
    logits = x[0].double() @ weights.router.double().T
    for k in range(2, 17):
        best = logits[:, :k].topk(2).values
        assert (best[:, 0] - best[:, 1]).min() >= 1e-4
    assert torch.equal(x, weights.tokens(2000))
    assert not torch.equal(x, weights.tokens(2000, seed=3))
