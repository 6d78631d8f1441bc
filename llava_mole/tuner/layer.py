"""The adapter layer of one FFN: its router, and the experts of its linears."""

import math
from functools import partial

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from llava_mole.mole import Dispatch, LoraExperts, Router, route, takes_by_token
from llava_mole.tuner.config import MoleConfig
from llava_mole.tuner.fused import few_tokens, ffn_obstacle, form_obstacle, run_fused
from llava_mole.tuner.state import RoutingState
from llava_mole.tuner.targets import linear_features

CANNOT_MERGE = (
    "A MoLE adapter cannot be merged into the base weights: every token chooses its own expert. "
    "Keep the model wrapped (it saves, generates and resumes as it is), or call unload() to get "
    "the base model back without the adapter."
)


class MoleLayer(nn.Module, BaseTunerLayer):
    """One FFN with a router and, for each linear, K LoRA experts (LLaVA-MoLE, Sec. 3.3).

    The FFN's own module is ``base_layer``, as it was: the expert k of a token is chosen once, from
    the FFN's input, and every linear gets ``g * (alpha/r) * B_k A_k x_l`` added (Eq. 4 read per
    linear). A plain SwiGLU FFN is computed as a whole (`tuner/fused.py`). In all others forward
    hooks on the linears add the experts, so that activation, gating and the linears' class
    (bitsandbytes' ``Linear4bit`` too) do not matter.

    Where the FFN has no module (OPT's ``fc1`` and ``fc2``) its first linear is ``base_layer`` and
    the others are reached by their hooks alone.

    Saved keys are ``<ffn>.mole_router.weight`` and ``<ffn>.mole_<linear>.{A,B}``.

    Args:
        base_layer: The FFN, or its first linear.
        linears: Names relative to the FFN -> its linears.
        index: Position among the model's FFNs.
        state: Where routing is recorded, shared by the model's layers.
    """

    def __init__(
        self, base_layer: nn.Module, linears: dict[str, nn.Module], index: int, state: RoutingState
    ):
        super().__init__()
        self.base_layer = base_layer
        self.index = index
        self.state = state
        self.mole_router = nn.ModuleDict()
        self.attributes = {name: "mole_" + name.replace(".", "_") for name in linears}
        for attribute in self.attributes.values():
            setattr(self, attribute, nn.ModuleDict())
        self.adapter_layer_names = ("mole_router", *self.attributes.values())
        self._linears = dict(linears)  # not a ModuleDict, which would register each a second time
        self._form_obstacle = form_obstacle(base_layer, linears)
        self._has_siblings = base_layer in linears.values()
        self._last = list(linears)[-1]
        self._dispatches: dict[str, Dispatch] = {}
        self._handles = [
            # No closure, so that copying or pickling a model takes the copied layer along.
            linear.register_forward_hook(partial(self.add_experts, name))
            for name, linear in linears.items()
        ]

    def update_layer(self, adapter_name: str, config: MoleConfig, r: int, lora_alpha: int) -> None:
        """Adds an adapter: its router and its experts.

        Args:
            adapter_name: Name of the adapter.
            config: Its configuration.
            r: Rank of this FFN's experts (``rank_pattern`` may differ from ``config.r``).
            lora_alpha: Alpha of this FFN's experts.
        """
        scaling = lora_alpha / (math.sqrt(r) if config.use_rslora else r)
        width = None
        for name, linear in self._linears.items():
            in_features, out_features = linear_features(linear)
            width = width or in_features
            on_meta = next(linear.parameters()).device.type == "meta"
            experts = LoraExperts(
                in_features,
                out_features,
                config.num_experts,
                r,
                scaling,
                config.lora_dropout,
                device="meta" if on_meta else None,
            )
            if config.init_lora_weights is not True:
                experts.reset_parameters(config.init_lora_weights)
            getattr(self, self.attributes[name])[adapter_name] = experts
        self.mole_router[adapter_name] = Router(width, config.num_experts, config.router_bias)
        self.state.configs[adapter_name] = config
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        """Moves an adapter to its linears' devices and dtypes; the router stays in float32."""
        where = device
        for name, linear in self._linears.items():
            experts = getattr(self, self.attributes[name])
            base_device, dtype = self._get_base_layer_device_and_dtype(linear)
            where = where or base_device
            if adapter_name not in experts or experts[adapter_name].A.device.type == "meta":
                continue
            floating = dtype is not None and dtype.is_floating_point
            experts[adapter_name].to(device or base_device, dtype=dtype if floating else None)
        if adapter_name in self.mole_router:
            router = self.mole_router[adapter_name]
            if router.weight.device.type != "meta":
                router.to(where, dtype=torch.float32)

    def forward(self, x: torch.Tensor, *args, **kwargs):
        """Routes the FFN's input ``x (..., D)`` once, then runs the FFN with its experts."""
        adapters = [] if self.disable_adapters else self.active_adapters
        adapters = [name for name in adapters if name in self.mole_router]
        if len(adapters) == 1 and not (args or kwargs) and self._is_fused(x, adapters[0]):
            return self._forward_fused(x, adapters[0])
        self._dispatches = {name: self._route(x, name) for name in adapters}
        try:
            return self.base_layer(x, *args, **kwargs)
        finally:
            if not self._has_siblings:
                self._dispatches = {}

    def _route(self, x: torch.Tensor, adapter: str) -> Dispatch:
        config, router = self.state.configs[adapter], self.mole_router[adapter]
        logits = self._image_logits(x, adapter)
        if logits is None:
            logits = router(x.reshape(-1, x.shape[-1]))
        chosen = route(logits, config.gate_scaling)
        self.state.record(self.index, adapter, chosen)
        return Dispatch(chosen, config.routing, config.dispatch)

    def _image_logits(self, x: torch.Tensor, adapter: str) -> torch.Tensor | None:
        """The tokens' logits ``(T, K)`` where their images decide, None where they do."""
        if not self.state.configs[adapter].route_by_image:
            return None
        return self.state.forwards.logits(self.mole_router[adapter], x)

    def _is_fused(self, x: torch.Tensor, adapter: str) -> bool:
        """Whether ``x`` takes the fused path.

        Raises:
            ValueError: If it was asked for and something is in its way.
        """
        config = self.state.configs[adapter]
        if config.dispatch not in ("auto", "fused"):
            return False
        if config.dispatch == "auto" and config.num_experts == 1:
            return False  # PEFT's LoRA, operation by operation
        if few_tokens(x) and not takes_by_token(x, config.routing):
            return False
        obstacle = self._form_obstacle or ffn_obstacle(
            x, self.base_layer, self.mole_router[adapter], self._linears, self._experts(adapter)
        )
        if obstacle and config.dispatch == "fused":
            raise ValueError(f"dispatch='fused' needs {obstacle}; use dispatch='auto'.")
        return obstacle is None

    def _experts(self, adapter: str) -> list[LoraExperts]:
        return [getattr(self, attribute)[adapter] for attribute in self.attributes.values()]

    def _forward_fused(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        config, router = self.state.configs[adapter], self.mole_router[adapter]
        linears, experts = self._linears.values(), self._experts(adapter)
        logits = self._image_logits(x, adapter)
        y, chosen = run_fused(x, router, linears, experts, config, logits)
        self.state.record(self.index, adapter, chosen)
        return y

    def add_experts(
        self, name: str, linear: nn.Module, args: tuple, output: torch.Tensor
    ) -> torch.Tensor:
        """Adds the active experts' output to that of one linear, as the linear's forward hook.

        Args:
            name: Name of the linear, relative to the FFN.
            linear: The linear.
            args: Its arguments, the first one its input ``(..., d_in)``.
            output: ``(..., d_out)``, its own output.

        Returns:
            ``(..., d_out)`` in the dtype of ``output``.
        """
        x = args[0]
        result = output
        for adapter, dispatch in self._dispatches.items():
            experts = getattr(self, self.attributes[name])[adapter]
            x = self._cast_input_dtype(x, experts.A.dtype)
            delta = experts(x.reshape(-1, x.shape[-1]), dispatch)
            result = result + delta.view(output.shape)
        if self._has_siblings and name == self._last:
            self._dispatches = {}
        return result if result.dtype == output.dtype else result.to(output.dtype)

    def delete_adapter(self, adapter_name: str) -> None:
        """Deletes an adapter's router and experts."""
        super().delete_adapter(adapter_name)
        self.state.configs.pop(adapter_name, None)
        self.state.global_counts.pop(adapter_name, None)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuses: which expert to merge depends on the token."""
        raise ValueError(CANNOT_MERGE)

    def unmerge(self) -> None:
        """Does nothing: nothing is ever merged."""

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """Takes the hooks off and gives the FFN back."""
        if merge:
            raise ValueError(CANNOT_MERGE)
        for handle in self._handles:
            handle.remove()
        return self.base_layer
