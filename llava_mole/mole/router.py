"""The router of one FFN: which expert a token goes to, and how strongly (LLaVA-MoLE, Eq. 3)."""

from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

GATE_SCALINGS = ("none", "prob", "straight_through")

# As transformers' usual initializer_range. Zeros would tie all experts, and the tie-break would
# send every token to expert 0.
ROUTER_INIT_STD = 0.02


class Route(NamedTuple):
    """What the router says about T tokens.

    Attributes:
        choice: ``(T,)`` int64, the expert with the highest logit; the lowest index wins a tie.
        probs: ``(T, K)`` softmax of the logits, float32 (float64 for a float64 model), with grad.
        gate: ``(T,)`` the factor on the chosen expert's output, or None for a factor of one.
    """

    choice: torch.Tensor
    probs: torch.Tensor
    gate: torch.Tensor | None


def router_logits(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits ``(T, K)`` of tokens ``x (T, D)``, in at least float32 (Eq. 3)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    logits = x.to(dtype) @ weight.to(dtype).t()
    return logits if bias is None else logits + bias.to(dtype)


class _RouterLogits(torch.autograd.Function):
    """``x @ weight.T`` in at least float32, saving x as it came.

    Plain autograd on ``x.float()`` would keep a float32 copy of x for every FFN (16 KiB a token at
    width 4096) beside the bfloat16 one that the experts hold already.
    """

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return router_logits(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        with torch.autocast(device_type=grad.device.type, enabled=False):
            grad_x = grad_weight = None
            if ctx.needs_input_grad[0]:
                grad_x = (grad @ weight.to(grad.dtype)).to(x.dtype)
            if ctx.needs_input_grad[1]:
                grad_weight = (grad.t() @ x.to(grad.dtype)).to(weight.dtype)
        return grad_x, grad_weight


class Router(nn.Module):
    """Linear router over K experts (LLaVA-MoLE, Eq. 3: ``G_j(x) = W_j^g x``).

    Parameters and arithmetic are float32 whatever the dtype of the base model, under autocast too:
    a bfloat16 softmax rounds probabilities to two digits, and the choice with them. The paper has
    no bias; ``bias=True`` is an option of ours.

    Args:
        in_features: Width D of the FFN's input.
        num_experts: Number of experts K.
        bias: Adds a bias to the logits, initialised with zeros.
        device: Where the parameters are created.
    """

    def __init__(
        self,
        in_features: int,
        num_experts: int,
        bias: bool = False,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.in_features = in_features
        self.num_experts = num_experts
        shape = (num_experts, in_features)
        self.weight = nn.Parameter(torch.empty(shape, dtype=torch.float32, device=device))
        if bias:
            self.bias = nn.Parameter(torch.empty(num_experts, dtype=torch.float32, device=device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws a small normal weight (std 0.02) and clears the bias."""
        nn.init.normal_(self.weight, std=ROUTER_INIT_STD)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits ``(T, K)`` of tokens ``x (T, D)``, in at least float32."""
        # Function and context keep memory and precision; where nothing asks for either, as in a
        # decode step, they would cost more than the same product without them.
        plain = not torch.is_grad_enabled() and x.dtype == self.weight.dtype
        if plain and not torch.is_autocast_enabled(x.device.type):
            logits = F.linear(x, self.weight)
            return logits if self.bias is None else logits + self.bias
        with torch.autocast(device_type=x.device.type, enabled=False):
            logits = _RouterLogits.apply(x, self.weight)
            return logits if self.bias is None else logits + self.bias.to(logits.dtype)

    def extra_repr(self) -> str:
        """Shows the sizes in the module's printed form."""
        return (
            f"in_features={self.in_features}, num_experts={self.num_experts}, "
            f"bias={self.bias is not None}"
        )


def route(logits: torch.Tensor, gate_scaling: str = "none") -> Route:
    """Chooses one expert per token (LLaVA-MoLE, Eq. 3) and the factor on its output.

    As printed, Eq. 4 adds the chosen expert's output as it is (``"none"``), so the language loss
    gives the router no gradient and only the balance loss trains it. ``"prob"`` multiplies by the
    chosen expert's probability (Switch Transformer, Eq. 2); ``"straight_through"`` multiplies by
    one in the forward pass and lets the gradient of the probability through in the backward pass.

    Args:
        logits: ``(T, K)`` router logits.
        gate_scaling: ``"none"``, ``"prob"`` or ``"straight_through"``.

    Returns:
        The choice, the probabilities and the gate.

    Raises:
        ValueError: If ``gate_scaling`` is unknown.
    """
    probs = F.softmax(logits, dim=-1)
    choice = logits.argmax(dim=-1)
    if gate_scaling == "none":
        return Route(choice, probs, None)
    chosen = probs.gather(1, choice[:, None]).squeeze(1)
    if gate_scaling == "prob":
        return Route(choice, probs, chosen)
    if gate_scaling == "straight_through":
        return Route(choice, probs, 1 + (chosen - chosen.detach()))
    raise ValueError(f"gate_scaling={gate_scaling!r} is unknown; use one of {GATE_SCALINGS}.")
