"""PEFT's LoRA of an attention linear, as one operation where nothing speaks against it."""

from typing import Any

import torch
from peft.tuners import lora
from torch import nn

from llava_mole.mole import lora_linear
from llava_mole.tuner.fused import input_obstacle, linear_obstacle


class LoraLinear(lora.Linear):
    """A :class:`peft.tuners.lora.Linear` in all but the speed of its forward and backward pass.

    With several active adapters, variants of LoRA, merged or quantised weights, hooks, differing
    dtypes or under torch.compile, PEFT's own forward runs.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """``W x + b + s B A x`` for ``x (..., in)``."""
        name = None if args or kwargs else self._only_adapter()
        if name is None:
            return super().forward(x, *args, **kwargs)
        base, A, B = self.get_base_layer(), self.lora_A[name], self.lora_B[name]
        if (
            linear_obstacle("the base", base)
            or input_obstacle(x, base.weight, A.weight)
            or linear_obstacle("lora_A", A, trained=True)
            or linear_obstacle("lora_B", B, trained=True)
        ):
            return super().forward(x)
        dropout = self.lora_dropout[name]
        p = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        return lora_linear(x, base.weight, base.bias, A.weight, B.weight, self.scaling[name], p)

    def _only_adapter(self) -> str | None:
        """The active adapter, if there is one and it is a plain LoRA."""
        if self.disable_adapters or self.merged or self.lora_variant:
            return None
        active = [name for name in self.active_adapters if name in self.lora_A]
        return active[0] if len(active) == 1 and not self.lora_bias[active[0]] else None
