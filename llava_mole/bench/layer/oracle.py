"""The layer token by token in float64: slow, and written apart from the product and all arms."""

from typing import NamedTuple

import torch

from llava_mole.bench.layer.weights import DOWN, GATE, LINEARS, UP, Weights


class Answer(NamedTuple):
    """What an arm should compute.

    Attributes:
        y: ``(1, T, D)`` float64.
        gradients: of ``x`` and, under the names of `Weights.leaf`, of everything trained, when
            ``dy`` is the gradient of ``y``; float64.
        balance_gradients: of ``x`` and ``router``, of the balance loss; empty for
            dense routing.
        lopsided_gradients: the same if one expert had all the load; of even loads nothing is left,
            so that these tell what is small.
        choice: each token's expert.
    """

    y: torch.Tensor
    gradients: dict[str, torch.Tensor]
    balance_gradients: dict[str, torch.Tensor]
    lopsided_gradients: dict[str, torch.Tensor]
    choice: list[int]


def answer(
    weights: Weights,
    x: torch.Tensor,
    dy: torch.Tensor,
    dense: bool = False,
    balance_coef: float = 1e-2,
) -> Answer:
    """LLaVA-MoLE's layer (Eq. 3-5) and Switch Transformer's balance loss, one token at a time.

    Args:
        weights: of any dtype; computed with in float64.
        x: ``(1, T, D)``.
        dy: ``(1, T, D)``, gradient of the output.
        dense: all experts weighted by the softmax (Table 5), without a balance loss.
        balance_coef: factor on the balance loss.
    """
    names = ["router", *(f"{linear}.{part}" for linear in LINEARS for part in "AB")]
    leaves = {name: weights.leaf(name).detach().double().requires_grad_() for name in names}
    base = {name: weight.detach().double() for name, weight in weights.base.items()}
    # Taken apart once: a gradient of the whole stack for every token would cost more than all else.
    stacks = {name: leaf.unbind() for name, leaf in leaves.items()}
    inputs = x.detach().double().requires_grad_()
    K = len(stacks["router"])
    rows, chosen, mass = [], [], [0.0] * K
    for token in inputs[0].unbind():
        logits = [row @ token for row in stacks["router"]]
        best = max(logits)
        exponentials = [torch.exp(logit - best.detach()) for logit in logits]
        probs = [value / sum(exponentials) for value in exponentials]
        choice = max(range(K), key=lambda k: (logits[k].item(), -k))
        factors = dict(enumerate(probs)) if dense else {choice: 1.0}

        def linear(name: str, v: torch.Tensor, factors=factors) -> torch.Tensor:
            out = base[name] @ v
            for k, factor in factors.items():
                a, b = stacks[f"{name}.A"][k], stacks[f"{name}.B"][k]
                out = out + factor * weights.scaling * (b @ (a @ v))
            return out

        g, u = linear(GATE, token), linear(UP, token)
        rows.append(linear(DOWN, g / (1 + torch.exp(-g)) * u))
        chosen.append(choice)
        mass = [total + p for total, p in zip(mass, probs, strict=True)]
    y = torch.stack(rows)[None]
    T = len(chosen)
    shares = [chosen.count(k) / T for k in range(K)]
    balance = balance_coef * K * sum(f * p / T for f, p in zip(shares, mass, strict=True))
    routed = {"x": inputs, "router": leaves["router"]}
    return Answer(
        y.detach(),
        _gradients((y * dy.double()).sum(), {**leaves, "x": inputs}),
        {} if dense else _gradients(balance, routed),
        {} if dense else _gradients(balance_coef * K * mass[0] / T, routed),
        chosen,
    )


def _gradients(of: torch.Tensor, leaves: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(
        of, list(leaves.values()), retain_graph=True, materialize_grads=True
    )
    return dict(zip(leaves, found, strict=True))
