"""Any open_clip image encoder as the vision tower of transformers' LLaVA.

Importing this module registers ``model_type: open_clip_vision`` with ``AutoConfig`` and
``AutoModel``, so ``LlavaForConditionalGeneration`` builds, saves and reloads with such a tower
unmodified. Legend: N images, P tokens an image, width their channels.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

MODEL_TYPE = "open_clip_vision"
_CFG_KEYS = ("embed_dim", "quick_gelu", "vision_cfg")


class OpenClipVisionConfig(PreTrainedConfig):
    """Which open_clip encoder, and the figures that LLaVA asks a vision config for.

    Attributes:
        model_name: open_clip model name, for people; the architecture is in ``model_cfg``.
        model_cfg: ``{embed_dim, vision_cfg, quick_gelu}`` as open_clip's model configs.
        image_size: pixels a side.
        patch_size: pixels a side of what one image token covers (a CNN's stride).
        hidden_size: width of the hidden state that LLaVA reads.
        num_hidden_layers: hidden states besides the first, as transformers counts.
        num_prefix_tokens: class tokens in front of the P patches (ViT 1, timm trunks 0).
    """

    model_type = MODEL_TYPE
    base_config_key = "vision_config"

    model_name: str = ""
    model_cfg: dict[str, Any] = field(default_factory=dict)
    image_size: int = 224
    patch_size: int = 14
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_prefix_tokens: int = 1


class OpenClipVisionModel(PreTrainedModel):
    """The image half of an open_clip model, without its contrastive head.

    Hidden states are what transformers' CLIP returns: for open_clip's own ViTs the embeddings
    (after ``ln_pre``) and the output of each block, class token first; for timm trunks each
    stage or block and last ``forward_features``' output; for open_clip's ResNets each stage; CNN
    maps flattened row by row to (N, P, width).
    """

    config_class = OpenClipVisionConfig
    base_model_prefix = "vision_tower"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ("ResidualAttentionBlock", "CustomResidualAttentionBlock")
    # Attention is open_clip's own (torch's fused one); LLaVA hands its choice to every part.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: OpenClipVisionConfig):
        super().__init__(config)
        self.visual = _create_visual(config.model_cfg)
        # Built on the meta device before loading, a buffer that is computed in a constructor and
        # not saved would be left without a value: save them all.
        for module in self.visual.modules():
            module._non_persistent_buffers_set.clear()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keeps the initialisation that open_clip's constructors did."""

    def get_input_embeddings(self) -> None:
        """None: nothing before the first layer is ever made to require a gradient."""
        return None

    def train(self, mode: bool = True) -> "OpenClipVisionModel":
        """Stays in eval mode while frozen, or batch norms and dropout would change it anyway."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | int | Sequence[int] | None = None,
        return_dict: bool | None = None,
        **unused: Any,
    ) -> BaseModelOutputWithPooling | tuple:
        """Encodes images.

        Args:
            pixel_values: (N, 3, S, S) normalised pixels; or (N, P, hidden_size), this tower's own
                hidden state computed earlier (a feature cache), class token included where it has
                one, which is returned as every hidden state.
            output_hidden_states: True for all; an index or indices, as LLaVA passes its
                ``vision_feature_layer``, for these only: others are None and blocks above the
                highest are not run.
            return_dict: False for a tuple.
            unused: transformers' other keyword arguments.

        Returns:
            ``hidden_states`` (each (N, P, width)) and the ``last_hidden_state`` computed.

        Raises:
            ValueError: shapes this tower can't take.
        """
        total = self.config.num_hidden_layers + 1
        pixel_values = pixel_values.to(next(self.visual.parameters()).dtype)
        if pixel_values.ndim == 3:
            if pixel_values.shape[-1] != self.config.hidden_size:
                raise ValueError(
                    f"precomputed features are {pixel_values.shape[-1]} wide, but the vision tower "
                    f"{self.config.model_name!r} gives {self.config.hidden_size}; delete the "
                    "feature cache and let it be written again."
                )
            states = [pixel_values] * total
        else:
            size = self.config.image_size
            if pixel_values.ndim != 4 or tuple(pixel_values.shape[-2:]) != (size, size):
                raise ValueError(
                    f"the vision tower {self.config.model_name!r} reads (N, 3, {size}, {size}) "
                    f"pixels, not {tuple(pixel_values.shape)}; use the processor saved beside it."
                )
            wanted = _indices(output_hidden_states, total)
            states = hidden_states(self.visual, pixel_values, last=max(wanted))
            states = [s if i in wanted else None for i, s in enumerate(states)]
            last = states[max(wanted)]
            states += [None] * (total - len(states))
        output = BaseModelOutputWithPooling(
            last_hidden_state=pixel_values if pixel_values.ndim == 3 else last,
            hidden_states=tuple(states) if output_hidden_states is not None else None,
        )
        return output.to_tuple() if return_dict is False else output


def hidden_states(
    visual: nn.Module, pixels: torch.Tensor, last: int | None = None
) -> list[torch.Tensor]:
    """All hidden states of an open_clip encoder up to index ``last``, each (N, P, width)."""
    if hasattr(visual, "transformer"):  # open_clip's own ViT
        with _reference_attention():
            states = [visual._embeds(pixels)]
            for block in visual.transformer.resblocks[:last]:
                states.append(block(states[-1]))
        return states
    if hasattr(visual, "trunk"):  # timm
        trunk = visual.trunk
        # Convolutions run up to twice as fast with the channels last in memory.
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        final, maps = trunk.forward_intermediates(pixels, norm=False, output_fmt="NCHW")
        if final.ndim == 3:
            final = final[:, getattr(trunk, "num_prefix_tokens", 0) :]
        elif getattr(trunk, "output_fmt", "NCHW") == "NHWC":
            final = final.flatten(1, 2)
        else:
            final = final.flatten(2).transpose(1, 2)
        return [*(m.flatten(2).transpose(1, 2) for m in maps), final]
    maps = visual.forward_intermediates(pixels, intermediates_only=True)["image_intermediates"]
    return [m.flatten(2).transpose(1, 2) for m in maps]


@contextlib.contextmanager
def _reference_attention() -> Iterator[None]:
    """Attention by scaled_dot_product_attention, as in transformers.

    nn.MultiheadAttention has another kernel for frozen modules in eval mode, whose last bits
    differ from HF CLIP's and between a frozen tower and one that trains.
    """
    previous = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(previous)


def describe(model_name: str, model_cfg: dict[str, Any], layer: int = -2) -> OpenClipVisionConfig:
    """The config of an encoder, its figures measured on one image on the meta device.

    Args:
        model_name: for people and errors.
        model_cfg: ``{embed_dim, vision_cfg, quick_gelu}``.
        layer: index of the hidden state that LLaVA reads.

    Raises:
        ValueError: the layer does not exist, or P is no square grid.
    """
    model_cfg = {k: v for k, v in model_cfg.items() if k in _CFG_KEYS}
    size = model_cfg.get("vision_cfg", {}).get("image_size", 224)
    size = size[0] if isinstance(size, list | tuple) else size
    with torch.device("meta"):
        visual = _create_visual(model_cfg).eval()
        states = hidden_states(visual, torch.empty(1, 3, size, size))
    if not -len(states) <= layer < len(states):
        raise ValueError(
            f"model.vision_feature_layer is {layer}, but {model_name!r} has {len(states)} hidden "
            f"states; choose between {-len(states)} and {len(states) - 1}."
        )
    prefix = 1 if hasattr(visual, "transformer") else 0
    _, tokens, width = states[layer].shape
    grid = round((tokens - prefix) ** 0.5)
    if grid * grid != tokens - prefix or size // (size // grid) != grid:
        raise ValueError(
            f"{model_name!r} turns {size} px into {tokens - prefix} tokens, which a processor "
            "can't count from a patch size; set model.image_size to a multiple of the stride."
        )
    return OpenClipVisionConfig(
        model_name=model_name,
        model_cfg=model_cfg,
        image_size=size,
        patch_size=size // grid,
        hidden_size=width,
        num_hidden_layers=len(states) - 1,
        num_prefix_tokens=prefix,
    )


def _indices(selection: bool | int | Sequence[int] | None, total: int) -> set[int]:
    """The hidden states to keep; a bool or None keeps all."""
    if selection is None or isinstance(selection, bool):
        return set(range(total))
    chosen = [selection] if isinstance(selection, int) else list(selection)
    if bad := [i for i in chosen if not -total <= i < total]:
        raise ValueError(f"vision_feature_layer {bad[0]} is out of range: {total} hidden states.")
    return {i % total for i in chosen}


def _create_visual(model_cfg: dict[str, Any]) -> nn.Module:
    """open_clip's image encoder of ``model_cfg`` without pooling and projection heads."""
    from open_clip.model import _build_vision_tower

    if "vision_cfg" not in model_cfg:
        raise ValueError(
            "model.vision_config has no vision_cfg: write open_clip's {embed_dim, vision_cfg: "
            "{...}, quick_gelu}, or transformers' with a model_type."
        )
    try:
        visual = _build_vision_tower(
            model_cfg.get("embed_dim", 512),
            # Never fetched here: weights.py reads all weights.
            {**model_cfg["vision_cfg"], "timm_model_pretrained": False},
            quick_gelu=model_cfg.get("quick_gelu", False),
        )
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"model.vision_config.vision_cfg: open_clip says: {error}") from error
    # What only the contrastive loss reads: LLaVA's count of parameters has none of it.
    if hasattr(visual, "trunk"):
        visual.trunk.reset_classifier(0, "")
        visual.head = nn.Identity()
    elif hasattr(visual, "transformer"):
        visual.proj = None
        if visual.attn_pool is not None:
            visual.attn_pool, visual.attn_pool_contrastive = None, None
            visual.ln_post = nn.Identity()
    else:
        visual.attnpool = nn.Identity()
    return visual


AutoConfig.register(MODEL_TYPE, OpenClipVisionConfig)
AutoModel.register(OpenClipVisionConfig, OpenClipVisionModel)
