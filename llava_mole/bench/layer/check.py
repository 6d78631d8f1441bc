"""Whether arms compute what they should: what differs is not timed."""

import math
from collections.abc import Mapping, Sequence

import torch

from llava_mole.bench.layer.arm import Arm
from llava_mole.bench.layer.arms import (
    DENSE,
    DENSE_RANK,
    KINDS,
    MASK_LOOP,
    MOLE,
    PEFT,
    SPARSE,
    named,
)
from llava_mole.bench.layer.oracle import Answer, answer
from llava_mole.bench.layer.others import BALANCE_COEF, MaskLoop
from llava_mole.bench.layer.product import Frozen, Lora
from llava_mole.bench.layer.weights import Weights

# In float64: largest difference over the largest value.
EXACT = 1e-12
# In the dtype that is timed: norm of the difference over the norm.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 3e-2}
_TOKENS = 24


def check_exactly(weights: Weights, experts: Sequence[int]) -> None:
    """Compares every arm, in float64, with the oracle: output, gradients of x, A, B and router.
    Those of the balance loss are compared by themselves: beside the output's they are tiny.

    Sparse mixtures with three routings: as drawn, one expert without tokens, all tokens to one.

    Args:
        weights: float64, with as many experts as the largest of ``experts``.
        experts: numbers of experts.

    Raises:
        RuntimeError: an arm differs.
    """
    x = weights.tokens(_TOKENS)
    dy = normal_like(x)
    one = answer(weights.first(1), x, dy)
    _compare(PEFT, Lora(weights), x, dy, one)
    for K in (1, *(k for k in experts if k > 1)):
        drawn = weights.first(K)
        routings = {"": drawn}
        if K > 1:
            routings |= {
                ", an expert without tokens": drawn.steered(K - 1, towards=False),
                ", all tokens to one expert": drawn.steered(K - 1, towards=True),
            }
        for routing, steered in routings.items():
            expected = answer(steered, x, dy)
            used = set(expected.choice)
            assert routing == "" or used <= (set(range(K - 1)) if "without" in routing else {K - 1})
            for kind in SPARSE:
                _compare(named(kind, K) + routing, KINDS[kind](steered), x, dy, expected)
        expected = answer(drawn, x, dy, dense=True)
        for kind in (DENSE, DENSE_RANK):
            _compare(named(kind, K), KINDS[kind](drawn), x, dy, expected)


def _compare(name: str, arm: Arm, x, dy, expected: Answer) -> None:
    x = x.detach().requires_grad_()
    y, _ = arm(x)
    y.backward(dy)
    _equal(name, "output", y.detach(), expected.y, EXACT)
    for what, value in {"x": x.grad, **arm.gradients()}.items():
        _equal(name, f"gradient of {what}", value, expected.gradients[what], EXACT)
    if not expected.balance_gradients or "router" not in arm.leaves:
        return
    x.grad = None
    arm.forget_gradients()
    _, balance = arm(x)
    if balance is None:
        raise RuntimeError(f"{name}: there is no balance loss; not timed")
    balance.backward()
    for what, wanted in expected.balance_gradients.items():
        found = x.grad if what == "x" else arm.gradients()[what]
        scale = expected.lopsided_gradients[what].abs().max().item()
        _equal(name, f"balance loss's gradient of {what}", found, wanted, EXACT, scale)


def _equal(name: str, what: str, found, wanted, bound: float, scale: float = 0.0) -> None:
    difference = (found - wanted).abs().max().item()
    scale = max(scale, wanted.abs().max().item())
    if not difference <= bound * scale:
        difference = difference / scale if scale else math.inf
        raise _refusal(name, what, difference, "the oracle's")


def check_together(arms: Mapping[str, Arm], experts: Sequence[int], x, dy) -> None:
    """Compares the arms that will be timed among each other, on what they are timed with.

    Args:
        arms: of `llava_mole.bench.layer.arms.makers`.
        experts: numbers of experts.
        x: ``(1, T, D)``, takes a gradient.
        dy: ``(1, T, D)``.

    Raises:
        RuntimeError: two arms differ by more than rounding.
    """
    pairs = [(PEFT, [named(MOLE, 1)])]
    for K in experts:
        pairs.append((named(MASK_LOOP, K), [named(kind, K) for kind in SPARSE]))
        pairs.append((named(DENSE, K), [named(DENSE_RANK, K)]))
    for reference, others in pairs:
        wanted = _everything(arms[reference], x, dy)
        scales = {"gradient of router": _lopsided(arms[reference], x)}
        for name in others:
            found = _everything(arms[name], x, dy)
            for what in wanted.keys() & found.keys():
                values = (found[what], wanted[what])
                _close(name, what, *values, x.dtype, f"{reference}'s", scales.get(what, 0.0))


def _everything(arm: Arm, x: torch.Tensor, dy: torch.Tensor) -> dict[str, torch.Tensor]:
    x.grad = None
    arm.forget_gradients()
    y = arm.train_step(x, dy)
    gradients = {"x": x.grad, **arm.gradients()}
    return {"output": y.detach(), **{f"gradient of {k}": v for k, v in gradients.items()}}


def _lopsided(arm: Arm, x: torch.Tensor) -> float:
    """Norm of the router's gradient from the balance loss if one expert had all the load.

    Near even loads next to nothing is left of it but rounding.
    """
    if not isinstance(arm, MaskLoop):
        return 0.0
    probs = arm.probs(x.detach().flatten(0, 1))
    loss = BALANCE_COEF * probs.shape[1] * probs[:, 0].mean()
    return torch.autograd.grad(loss, arm.router)[0].norm().item()


def check_decode(name: str, arm: Frozen, layers: Sequence[Weights], tokens: torch.Tensor) -> None:
    """Compares an arm's outputs for one token at a time with the oracle.

    Args:
        name: the arm's.
        arm: without gradients, in eval mode.
        layers: weights of each of its FFNs.
        tokens: ``(1, T, D)``.

    Raises:
        RuntimeError: it differs by more than rounding.
    """
    with torch.no_grad():
        steps = [arm.outputs(token[None, None]) for token in tokens[0]]
    for index, weights in enumerate(layers):
        found = torch.cat([outputs[index] for outputs in steps], dim=1)
        expected = answer(weights, tokens, torch.zeros_like(tokens)).y
        _close(f"{name}, FFN {index}", "output", found, expected, found.dtype, "the oracle's")


def _close(
    name: str,
    what: str,
    found: torch.Tensor,
    wanted: torch.Tensor,
    dtype: torch.dtype,
    whose: str,
    scale: float = 0.0,
) -> None:
    wanted = wanted.double()
    difference = (found.double().view_as(wanted) - wanted).norm().item()
    scale = max(scale, wanted.norm().item())
    if not difference <= ROUNDING[dtype] * scale:
        raise _refusal(name, what, difference / scale if scale else math.inf, whose)


def _refusal(name: str, what: str, difference: float, whose: str) -> RuntimeError:
    return RuntimeError(f"{name}: {what} differs from {whose} by {difference:.2g}; not timed")


def normal_like(x: torch.Tensor, seed: int = 2) -> torch.Tensor:
    """A gradient for an output like ``x``."""
    generator = torch.Generator(x.device).manual_seed(seed)
    return torch.empty_like(x).normal_(generator=generator)
