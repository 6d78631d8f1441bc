"""A decode step of one row on the CPU: one token, one expert, known to the host without waiting."""

from typing import Any

import torch
from torch.nn import functional as F

from llava_mole.mole.experts import LoraExperts
from llava_mole.mole.router import Route, Router, route


class OneToken:
    """What Router, Dispatch and LoraExperts do, in as few operations and calls as can be.

    Between two linears of an FFN a decode step reads megabytes of the base model's weights, so that
    every further call finds cold caches and takes about as long as the token's own products.

    Args:
        route: What the router said about the token.
    """

    def __init__(self, route: Route):
        self.route = route
        self.expert = route.choice.item()

    @classmethod
    def of(cls, x: torch.Tensor, router: Router, config: Any) -> "OneToken | None":
        """Routes ``x (..., D)`` if it is a single token that may take this way.

        Args:
            x: The FFN's input.
            router: Its router.
            config: Has ``num_experts``, ``routing``, ``dispatch`` and ``gate_scaling``.

        Returns:
            None for several tokens, on a device (the host would wait), with gradients (every
            expert needs one, if only of zeros), in other dtypes than float32, for one expert (which
            is PEFT's LoRA, operation by operation), and where the config asks for something else.
        """
        if (
            x.numel() != router.in_features
            or torch.is_grad_enabled()
            or x.device.type != "cpu"
            or x.dtype != torch.float32
            or torch.is_autocast_enabled("cpu")
            or config.num_experts == 1
            or config.dispatch != "auto"
            or config.routing != "top1"
        ):
            return None
        logits = F.linear(x.view(1, -1), router.weight)
        if router.bias is not None:
            logits = logits + router.bias
        return cls(route(logits, config.gate_scaling))

    def apply(self, x: torch.Tensor, experts: LoraExperts) -> torch.Tensor:
        """What the token's expert adds to a linear's output for its input ``x (..., d_in)``."""
        a = experts.A[self.expert]
        z = F.linear(x if x.dtype == a.dtype else x.to(a.dtype), a) * experts.scaling
        if self.route.gate is not None:
            z = z * self.route.gate.to(z.dtype)
        return F.linear(z, experts.B[self.expert])
