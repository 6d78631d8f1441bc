"""The arms that are not the product: mixtures of LoRA experts as they are usually written.

All are plain autograd over `torch` operations, experts in a list, the router's logits in float32.
They compute the very function that MoLE computes, as fast as their form allows: an expert's tokens
are searched once an FFN, results are added in place, and an expert without tokens does nothing.
"""

import torch
from torch import nn
from torch.nn import functional as F

from llava_mole.bench.layer.arm import Arm, Result
from llava_mole.bench.layer.weights import DOWN, GATE, LINEARS, UP, Weights

BALANCE_COEF = 1e-2  # MoleConfig's default


class _Mixture(Arm):
    """Experts in a list, a router, and Switch Transformer's balance loss."""

    def __init__(self, weights: Weights):
        super().__init__(weights)
        self.mlp = weights.ffn()
        self.scaling = weights.scaling
        self.router = self.leaves["router"] = nn.Parameter(weights.router.clone())
        self.experts: dict[str, list[tuple[nn.Parameter, nn.Parameter]]] = {}
        for name in LINEARS:
            for part in "AB":
                leaf = weights.leaf(f"{name}.{part}")
                self.leaves[f"{name}.{part}"] = [nn.Parameter(expert.clone()) for expert in leaf]
            pairs = zip(self.leaves[f"{name}.A"], self.leaves[f"{name}.B"], strict=True)
            self.experts[name] = list(pairs)

    def probs(self, x: torch.Tensor) -> torch.Tensor:
        """``(T, K)`` in the router's dtype, for ``x (T, D)``."""
        return F.softmax(F.linear(x.to(self.router.dtype), self.router), dim=-1)

    def balance(self, probs: torch.Tensor, tokens: list[torch.Tensor]) -> torch.Tensor:
        """Switch Transformer, Eq. 4-6, times its coefficient."""
        share = torch.tensor([len(mine) for mine in tokens]).to(probs) / len(probs)
        return BALANCE_COEF * len(tokens) * (share * probs.mean(0)).sum()

    def lora(self, name: str, k: int, x: torch.Tensor) -> torch.Tensor:
        """What one expert adds to one linear's output for ``x (T, d_in)``."""
        a, b = self.experts[name][k]
        return F.linear(F.linear(x, a), b) * self.scaling

    def __call__(self, x: torch.Tensor) -> Result:
        """Output ``(1, T, D)`` and balance loss for ``x (1, T, D)``."""
        flat = x.flatten(0, 1)
        probs = self.probs(flat)
        choice = probs.argmax(-1)
        tokens = [torch.nonzero(choice == k).squeeze(1) for k in range(probs.shape[1])]
        return self.mix(flat, tokens).view_as(x), self.balance(probs, tokens)

    def mix(self, x: torch.Tensor, tokens: list[torch.Tensor]) -> torch.Tensor:
        """The FFN's output ``(T, D)``, given each expert's tokens."""
        raise NotImplementedError


class MaskLoop(_Mixture):
    """At every linear a loop over experts: gather the tokens, apply the LoRA, add it to them."""

    def linear(self, name: str, x: torch.Tensor, tokens: list[torch.Tensor]) -> torch.Tensor:
        """One linear's output ``(T, d_out)`` with the experts'."""
        y = getattr(self.mlp, name)(x)
        for k, mine in enumerate(tokens):
            if len(mine):
                y.index_add_(0, mine, self.lora(name, k, x[mine]))
        return y

    def mix(self, x: torch.Tensor, tokens: list[torch.Tensor]) -> torch.Tensor:
        """The FFN's output ``(T, D)``, given each expert's tokens."""
        g, u = self.linear(GATE, x, tokens), self.linear(UP, x, tokens)
        return self.linear(DOWN, F.silu(g) * u, tokens)


class MixLora(_Mixture):
    """An FFN an expert, as MixLoRA describes it (Li et al., 2024, arXiv 2404.15159).

    The base's gate and up are computed once for all tokens and sliced; each expert then has its
    own activation and its own down.
    """

    def mix(self, x: torch.Tensor, tokens: list[torch.Tensor]) -> torch.Tensor:
        """The FFN's output ``(T, D)``, given each expert's tokens."""
        gate, up = self.mlp.gate_proj(x), self.mlp.up_proj(x)
        y = torch.zeros_like(x)
        for k, mine in enumerate(tokens):
            if len(mine):
                inputs = x[mine]
                g = gate[mine] + self.lora(GATE, k, inputs)
                u = up[mine] + self.lora(UP, k, inputs)
                h = F.silu(g) * u
                y.index_add_(0, mine, self.mlp.down_proj(h) + self.lora(DOWN, k, h))
        return y


class Dense(_Mixture):
    """The dense mixture of the paper's Table 5: all experts' outputs, weighted by the softmax."""

    def linear(self, name: str, x: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
        """One linear's output ``(T, d_out)`` with the experts'."""
        y = getattr(self.mlp, name)(x)
        for k in range(probs.shape[1]):
            y = y + probs[:, k, None] * self.lora(name, k, x)
        return y

    def __call__(self, x: torch.Tensor) -> Result:
        """Output ``(1, T, D)`` for ``x (1, T, D)``; there is nothing to balance."""
        flat = x.flatten(0, 1)
        probs = self.probs(flat).to(x.dtype)
        g, u = self.linear(GATE, flat, probs), self.linear(UP, flat, probs)
        return self.linear(DOWN, F.silu(g) * u, probs).view_as(x), None
