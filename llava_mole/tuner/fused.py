"""When an FFN takes the fused path (`llava_mole.mole.fused_ffn`), and with which tensors.

It reads the linears' weights instead of calling them, so that whatever else hangs on a call, a
quantised class, a hook, a partition that ZeRO-3 gathers, sends the FFN to the general path, where
its own forward runs and hooks add the experts.
"""

from collections.abc import Mapping, Sequence

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
    ffn_by_token,
    fused_ffn,
)
from llava_mole.tuner.config import MoleConfig

_LINEARS = ("gate_proj", "up_proj", "down_proj")


def form_obstacle(ffn: nn.Module, linears: Mapping[str, nn.Module]) -> str | None:
    """What in an FFN's making keeps it from the fused path; None if nothing does.

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
    ):
        return f"an FFN that computes what Llama's does, which {type(ffn).__name__} does not"
    return None


def ffn_obstacle(
    x: torch.Tensor,
    ffn: nn.Module,
    router: Router,
    linears: Mapping[str, nn.Module],
    experts: Sequence[LoraExperts],
) -> str | None:
    """What keeps ``x`` from the fused path through an FFN of Llama's form; None if nothing does.

    Everything that may change between two forwards is looked at: whatever somebody put on a part,
    or in its place, must not be passed over.

    Args:
        x: The FFN's input.
        ffn: The FFN.
        router: Its router.
        linears: Its linears by their names in it, as the adapter was put on them.
        experts: Theirs.
    """
    for name, linear in linears.items():
        if ffn._modules[name] is not linear:
            return f"the linears that the adapter was put on, and {name} is another now"
        if obstacle := linear_obstacle(name, linear, own_hooks=1):
            return obstacle
    for module in (ffn, ffn.act_fn, router, *experts):
        if obstacle := _call_obstacle(module):
            return obstacle
    obstacle = _activation_obstacle(ffn) or _settings_obstacle(experts)
    return obstacle or input_obstacle(x, linear.weight, experts[0].A)


def _activation_obstacle(ffn: nn.Module) -> str | None:
    activation = type(ffn.act_fn)
    if activation in (nn.SiLU, SiLUActivation):
        return None
    return f"an FFN that computes what Llama's does, with SiLU and not {activation.__name__}"


def _settings_obstacle(experts: Sequence[LoraExperts]) -> str | None:
    first = experts[0]
    for own in experts:
        if own.scaling != first.scaling:
            return f"one scaling for all linears, not {own.scaling} beside {first.scaling}"
        if _dropout(own) != _dropout(first) or _call_obstacle(own.dropout):
            return "the same dropout for all linears, without hooks"
    return None


def _dropout(experts: LoraExperts) -> float:
    dropout = experts.dropout
    return dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0


def _call_obstacle(module: nn.Module, own_hooks: int = 0) -> str | None:
    # Looked up in __dict__, as this runs for every linear of every forward.
    inside = module.__dict__
    if "forward" in inside:
        return "a forward that nothing has replaced (accelerate's offloading does)"
    if (
        len(inside["_forward_hooks"]) != own_hooks
        or inside["_forward_pre_hooks"]
        or inside["_backward_hooks"]
        or inside["_backward_pre_hooks"]
    ):
        return "an FFN, linears, router and experts without other hooks"
    return None


def linear_obstacle(
    name: str, linear: nn.Module, own_hooks: int = 0, trained: bool = False
) -> str | None:
    """What keeps a linear's weights from being used without calling it; None if nothing does.

    Args:
        name: What to call it.
        linear: A linear.
        own_hooks: How many of its forward hooks are the tuner's own.
        trained: Whether it may be trained.
    """
    parameters = linear.__dict__["_parameters"]
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if type(linear) is not nn.Linear or type(weight) is not nn.Parameter:
        return f"an unquantised torch.nn.Linear as {name}, not {type(linear).__name__}"
    if hasattr(weight, "ds_id"):
        return "whole weights on every rank, which ZeRO-3 does not keep"
    if not trained and (weight.requires_grad or (bias is not None and bias.requires_grad)):
        return f"a frozen base, and {name} is trained"
    return _call_obstacle(linear, own_hooks)


def input_obstacle(x: torch.Tensor, weight: torch.Tensor, A: torch.Tensor) -> str | None:
    """What keeps this input from a fused path: dtypes that nothing would reconcile, or tracing.

    Args:
        x: The FFN's input.
        weight: One of the base's weights.
        A: One of the adapter's.
    """
    if torch.compiler.is_compiling():
        return "eager execution; torch.compile fuses the general path by itself"
    autocast = torch.is_autocast_enabled(x.device.type)
    inner = torch.get_autocast_dtype(x.device.type) if autocast else A.dtype
    if not x.dtype == weight.dtype == inner:
        return (
            f"one dtype, and the input has {x.dtype}, the base {weight.dtype} and the adapter "
            f"{A.dtype}{f' under autocast to {inner}' if autocast else ''}"
        )
    return None


def few_tokens(x: torch.Tensor) -> bool:
    """Whether ``x (..., D)`` is a decode step."""
    return not torch.is_grad_enabled() and x.numel() <= BY_TOKEN_MAX_TOKENS * x.shape[-1]


def run_fused(
    x: torch.Tensor,
    router: Router,
    linears: Sequence[nn.Linear],
    experts: Sequence[LoraExperts],
    config: MoleConfig,
    logits: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Route]:
    """The FFN with its experts.

    Args:
        x: ``(..., D)``.
        router: Its router.
        linears: Gate, up and down.
        experts: Theirs.
        config: The adapter's.
        logits: ``(T, K)`` of the router, where it does not read ``x``.

    Returns:
        ``(..., D)``, and the route of the T tokens.
    """
    first = experts[0]
    p = _dropout(first)
    run = ffn_by_token if few_tokens(x) and not p else fused_ffn
    y, route = run(
        x.reshape(-1, x.shape[-1]),
        (router.weight, router.bias) if logits is None else logits,
        tuple(part for linear in linears for part in (linear.weight, linear.bias)),
        tuple(part for own in experts for part in (own.A, own.B)),
        FusedSettings(first.scaling, config.routing, config.gate_scaling, p),
    )
    return y.view(x.shape), route
