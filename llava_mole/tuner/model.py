"""MoLE as a PEFT tuner: experts in the FFNs, PEFT's own LoRA in attention."""

from contextlib import contextmanager

import torch
from peft.tuners.lora import Linear, LoraModel
from peft.tuners.tuners_utils import (
    BaseTunerLayer,
    _filter_state_dict_by_key_prefixes,
    _get_tuner_state_dict_key_prefixes,
)
from peft.utils.other import get_pattern_key
from torch import nn

from llava_mole.tuner.config import MoleConfig
from llava_mole.tuner.hooks import LossHook, StackHook
from llava_mole.tuner.images import ImageHooks, image_tokens_of
from llava_mole.tuner.layer import CANNOT_MERGE, MoleLayer
from llava_mole.tuner.lora import LoraLinear
from llava_mole.tuner.state import RoutingState
from llava_mole.tuner.targets import find_layout


class MoleModel(LoraModel):
    """Wraps the language model's FFNs in :class:`MoleLayer`, its attention linears in LoRA.

    Everything PEFT does (saving, loading, several adapters, disabling) is PEFT's; this class says
    which module gets which layer, refuses what cannot work, and is strict about missing weights.

    Attributes:
        state: where its layers record their routing (`RoutingState`).
    """

    prefix = "mole_"
    tuner_layer_cls = BaseTunerLayer  # LoraLayer in attention, MoleLayer around FFNs

    def _prepare_adapter_config(self, peft_config: MoleConfig, model_config: dict) -> MoleConfig:
        if "_layout" not in self.__dict__:
            self._layout = find_layout(self.model)
            self.state = RoutingState()
            self._hook_handles = self._register_hooks()
            self._reads_images = False
        if peft_config.target_modules is None:
            indices = peft_config.layers_to_transform
            if isinstance(indices, int):
                indices = [indices]
            peft_config.target_modules = self._layout.pattern(indices)
            # Now part of the pattern; PEFT refuses the two together when the config is loaded.
            peft_config.layers_to_transform = None
        self._refuse_idle_patterns(peft_config)
        if peft_config.route_by_image and not self._reads_images:
            self._read_images()
        return peft_config

    def _refuse_idle_patterns(self, config: MoleConfig) -> None:
        """Raises ValueError for a rank or α of what gets none: an FFN's linears share theirs."""
        names = [
            name
            for name, _ in self.model.named_modules()
            if self._check_target_module_exists(config, name)
        ]
        for which in ("rank_pattern", "alpha_pattern"):
            for key in getattr(config, which):
                if not any(get_pattern_key([key], name) == key for name in names):
                    raise ValueError(
                        f"{which}: {key!r} names no module that is adapted. The linears of an FFN "
                        "share one rank and one alpha: name the FFN (such as 'mlp')."
                    )

    def _register_hooks(self) -> list:
        stack = self.model.get_submodule(self._layout.stack)
        hook = StackHook(self.state)
        return [
            stack.register_forward_pre_hook(hook.before, with_kwargs=True),
            stack.register_forward_hook(hook.after, always_call=True),
            self.model.register_forward_hook(LossHook(self.state), with_kwargs=True),
        ]

    def _read_images(self) -> None:
        """Adds the hooks of routers that read images; others pay nothing for them."""
        image_tokens = image_tokens_of(self.model)
        if not image_tokens:
            raise ValueError(
                f"route_by_image: {type(self.model).__name__} reads no images (its config has no "
                "image_token_id); leave route_by_image off, or wrap a vision-language model."
            )
        hooks = ImageHooks(self.state, image_tokens)
        stack = self.model.get_submodule(self._layout.stack)
        self._hook_handles += [
            self.model.register_forward_pre_hook(hooks.before_model, with_kwargs=True),
            stack.register_forward_pre_hook(hooks.before_stack, with_kwargs=True),
            stack.register_forward_hook(hooks.after_stack, always_call=True),
        ]
        # On attention, which a layer calls before its FFN, also where the layer runs again for
        # backward: that may call its forward alone, without its hooks.
        for name in dict.fromkeys(name.rpartition(".")[0] for name in self._layout.attention):
            attention = self.model.get_submodule(name)
            self._hook_handles.append(
                attention.register_forward_pre_hook(hooks.before_attention, with_kwargs=True)
            )
        self._reads_images = True

    def _create_and_replace(
        self,
        config: MoleConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        *,
        parameter_name: str | None = None,
    ) -> None:
        if current_key not in self._layout.ffns:
            self._refuse_inner_linear(current_key)
            super()._create_and_replace(
                config,
                adapter_name,
                target,
                target_name,
                parent,
                current_key,
                parameter_name=parameter_name,
            )
            return
        r_key = get_pattern_key(config.rank_pattern.keys(), current_key)
        alpha_key = get_pattern_key(config.alpha_pattern.keys(), current_key)
        r = config.rank_pattern.get(r_key, config.r)
        lora_alpha = config.alpha_pattern.get(alpha_key, config.lora_alpha)
        if isinstance(target, MoleLayer):
            target.update_layer(adapter_name, config, r, lora_alpha)
            return
        names = self._layout.ffns[current_key]
        owner = current_key if current_key not in names else current_key.rpartition(".")[0]
        linears = {name.removeprefix(owner + "."): self.model.get_submodule(name) for name in names}
        index = list(self._layout.ffns).index(current_key)
        layer = MoleLayer(target, linears, index, self.state)
        layer.set_adapter(self.active_adapters)
        layer.update_layer(adapter_name, config, r, lora_alpha)
        self._replace_module(parent, target_name, layer, target)

    @staticmethod
    def _create_new_module(
        lora_config: MoleConfig, adapter_name: str, target: nn.Module, **kwargs
    ) -> nn.Module:
        module = LoraModel._create_new_module(lora_config, adapter_name, target, **kwargs)
        operation_by_operation = lora_config.dispatch == "loop" or (
            lora_config.dispatch == "auto" and lora_config.num_experts == 1
        )
        if type(module) is Linear and not operation_by_operation:
            # PEFT's choice of class by the base layer's is long; this one only computes faster.
            module.__class__ = LoraLinear
        return module

    def _refuse_inner_linear(self, key: str) -> None:
        for ffn, linears in self._layout.ffns.items():
            if key in linears:
                raise ValueError(
                    f"target_modules names {key}, a linear inside the FFN {ffn}. All linears of an "
                    f"FFN share one router: name the FFN ({ffn.rpartition('.')[2]!r}), or leave "
                    "target_modules at None."
                )

    def _check_merge_allowed(self) -> None:
        raise ValueError(CANNOT_MERGE)

    def add_weighted_adapter(self, *args, **kwargs) -> None:
        """Refuses: experts of different adapters answer to different routers."""
        raise ValueError(
            "MoLE adapters cannot be combined into one: each has a router of its own. Activate "
            "several with base_model.set_adapter([...]) to add their outputs."
        )

    @contextmanager
    def _enable_peft_forward_hooks(self, *args, **kwargs):
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                "adapter_names (one adapter per sample) is not supported by MoLE; run one batch "
                "per adapter with set_adapter()."
            )
        with super()._enable_peft_forward_hooks(*args, **kwargs):
            yield

    def unload(self) -> nn.Module:
        """Returns the base model without adapters and without hooks."""
        model = super().unload()
        for handle in self._hook_handles:
            handle.remove()
        return model

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: MoleConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        # PEFT only warns about missing and ignores unknown keys. A run that silently goes on with
        # a fresh router or expert is worse than one that stops.
        remapped = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, state_dict
        )
        known = model.state_dict()
        prefixes = _get_tuner_state_dict_key_prefixes(model, adapter_name=adapter_name)
        missing = sorted(_filter_state_dict_by_key_prefixes(known, prefixes).keys() - remapped)
        wrapper = "base_model.model."
        unknown = sorted(
            key for key in remapped if key not in known and key.removeprefix(wrapper) not in known
        )
        if missing or unknown:
            raise ValueError(
                f"The weights of adapter {adapter_name!r} do not fit the model: "
                f"{len(missing)} missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}. "
                "Load it on the base model it was trained on, with the adapter_config.json saved "
                "beside it; if the file is damaged, take an earlier checkpoint."
            )
        return remapped
