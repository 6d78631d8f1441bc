"""When an FFN takes the fused path (`llava_mole.mole.fused_ffn`), and with which tensors.

It reads the linears' weights instead of calling them, so that whatever else hangs on a call, a
quantised class, a hook, a partition that ZeRO-3 gathers, sends the FFN to the general path, where
its own forward runs and hooks add the experts.
"""

from collections.abc import Mapping

import torch
from torch import nn
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP

from llava_mole.mole import (
    BY_TOKEN_MAX_TOKENS,
    FusedSettings,
    LoraExperts,
    Route,
    Router,
    fused_ffn,
)
from llava_mole.tuner.config import MoleConfig

_LINEARS = ("gate_proj", "up_proj", "down_proj")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def few_tokens(x: torch.Tensor) -> bool:
    """Whether ``x (..., D)`` is a decode step, for which the general path has better ways."""
    return not torch.is_grad_enabled() and x.numel() <= BY_TOKEN_MAX_TOKENS * x.shape[-1]


def layer_obstacle(ffn: nn.Module, linears: Mapping[str, nn.Module]) -> str | None:
    """What keeps an FFN from the fused path whatever its input; None if nothing does.

    An FFN qualifies by what its forward does, not by its class's name: transformers' decoders
    share Llama's, instruction by instruction.

    Args:
        ffn: The FFN.
        linears: Its linears by their names in it.
    """
    forward, llama = getattr(type(ffn).forward, "__code__", None), LlamaMLP.forward.__code__
    if (
        tuple(linears) != _LINEARS
        or forward is None
        or (forward.co_code, forward.co_names) != (llama.co_code, llama.co_names)
        or type(ffn.act_fn) not in (nn.SiLU, SiLUActivation)
    ):
        return f"an FFN that computes what Llama's does, which {type(ffn).__name__} does not"
    for name, linear in linears.items():
        if obstacle := linear_obstacle(name, linear, own_hooks=1):
            return obstacle
    return _call_obstacle(ffn, own_hooks=0)


def linear_obstacle(
    name: str, linear: nn.Module, own_hooks: int = 0, trained: bool = False
) -> str | None:
    """What keeps a linear's weights from being used without calling it; None if nothing does.

    Args:
        name: What to call it.
        linear: A linear.
        own_hooks: How many hooks on it are the tuner's own.
        trained: Whether it may be trained.
    """
    if type(linear) is not nn.Linear or type(linear.weight) is not nn.Parameter:
        return f"an unquantised torch.nn.Linear as {name}, not {type(linear).__name__}"
    if hasattr(linear.weight, "ds_id"):
        return "whole weights on every rank, which ZeRO-3 does not keep"
    if not trained and any(p.requires_grad for p in linear._parameters.values() if p is not None):
        return f"a frozen base, and {name} is trained"
    return _call_obstacle(linear, own_hooks)


def _call_obstacle(module: nn.Module, own_hooks: int) -> str | None:
    if "forward" in module.__dict__:
        return "a forward that nothing has replaced (accelerate's offloading does)"
    if sum(len(getattr(module, kind)) for kind in _HOOKS) != own_hooks:
        return "an FFN and linears without other hooks"
    return None


def input_obstacle(x: torch.Tensor, weight: torch.Tensor, A: torch.Tensor) -> str | None:
    """What keeps this input from a fused path: dtypes that nothing would reconcile, or tracing.

    Args:
        x: The FFN's input.
        weight: One of the base's weights.
        A: One of the adapter's.
    """
    if torch.compiler.is_compiling():
        return "eager execution; torch.compile fuses the general path by itself"
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    inner = torch.get_autocast_dtype(device) if autocast else A.dtype
    if not x.dtype == weight.dtype == inner:
        return (
            f"one dtype, and the input has {x.dtype}, the base {weight.dtype} and the adapter "
            f"{A.dtype}{f' under autocast to {inner}' if autocast else ''}"
        )
    return None


def run_fused(
    x: torch.Tensor,
    router: Router,
    linears: Mapping[str, nn.Linear],
    experts: list[LoraExperts],
    config: MoleConfig,
) -> tuple[torch.Tensor, Route]:
    """The FFN with its experts.

    Args:
        x: ``(..., D)``.
        router: Its router.
        linears: Gate, up and down.
        experts: Theirs.
        config: The adapter's.

    Returns:
        ``(..., D)``, and the route of the T tokens.
    """
    dropout = experts[0].dropout
    y, route = fused_ffn(
        x.reshape(-1, x.shape[-1]),
        (router.weight, router.bias),
        tuple(part for linear in linears.values() for part in (linear.weight, linear.bias)),
        tuple(part for own in experts for part in (own.A, own.B)),
        FusedSettings(
            experts[0].scaling,
            config.routing,
            config.gate_scaling,
            dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0,
        ),
    )
    return y.view(x.shape), route
