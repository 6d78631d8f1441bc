"""What a run's ``model:`` section may say: the typed, documented fields and nothing else."""

from dataclasses import dataclass
from typing import Any

CONV_MODES = ("vicuna_v1", "plain", "chatml")
DTYPES = ("float32", "bfloat16", "float16")
STRATEGIES = ("default", "full")


@dataclass
class ModelConfig:
    """Where the model comes from and how it reads images and turns.

    One of three ways to build: ``checkpoint`` (a complete LLaVA), ``language_model`` plus
    ``vision_tower`` (pretrained parts, as LLaVA's stage 1 starts), or ``language_config`` plus
    ``vision_tower``/``vision_config`` (random weights from ``seed``, and the meta device, for
    which nothing is read from a hub).

    Attributes:
        checkpoint: complete LLaVA checkpoint in transformers' layout (folder or hub name).
        language_model: decoder with its tokenizer (folder or hub name), e.g. Vicuna-7B-v1.5.
        language_config: its architecture as a dict with ``model_type``: used instead of reading
            ``language_model`` on the meta device, and for a random decoder where that is null.
        tokenizer: tokenizer folder or hub name where it is not ``language_model``'s own.
        vision_tower: open_clip model name, or ``hf:`` and a CLIP vision folder or hub name.
        vision_pretrained: open_clip tag, or a weights file (safetensors, or a state dict that
            loads with ``weights_only=True``); null leaves the tower random.
        vision_config: a custom architecture: open_clip's ``{embed_dim, vision_cfg, quick_gelu}``
            (``vision_cfg.timm_model_name`` for a timm trunk) or HF's with ``model_type``.
        projector: weights for the projector: LLaVA's ``mm_projector.bin``, a ``.safetensors``
            file, or a stage-1 run directory.
        image_size: pixels a side that the tower reads; null means the architecture's own.
        image_mean: three channel means; null means those the tower was trained with (else CLIP's).
        image_std: three channel deviations; null as for ``image_mean``.
        vision_feature_layer: index into the tower's hidden states. LLaVA: -2.
        vision_feature_select_strategy: ``default`` drops the class token, ``full`` keeps all
            tokens (towers without a class token need it).
        conv_mode: template of the turns: ``vicuna_v1`` (LLaVA-1.5), ``plain`` (stage 1),
            ``chatml`` (SmolLM2).
        dtype: of all weights: ``float32``, ``bfloat16`` or ``float16``.
        attn_implementation: ``sdpa``, ``eager``, ``flash_attention_2``; null lets transformers
            choose.
        model_max_length: longest sequence in tokens, image tokens included (the paper: 4096).
        seed: of random weights.
    """

    checkpoint: str | None = None
    language_model: str | None = None
    language_config: dict[str, Any] | None = None
    tokenizer: str | None = None
    vision_tower: str = "ViT-L-14-336-quickgelu"
    vision_pretrained: str | None = None
    vision_config: dict[str, Any] | None = None
    projector: str | None = None
    image_size: int | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    vision_feature_layer: int = -2
    vision_feature_select_strategy: str = "default"
    conv_mode: str = "vicuna_v1"
    dtype: str = "float32"
    attn_implementation: str | None = None
    model_max_length: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for values that no way of building could use."""
        for key, value, allowed in (
            ("conv_mode", self.conv_mode, CONV_MODES),
            ("dtype", self.dtype, DTYPES),
            ("vision_feature_select_strategy", self.vision_feature_select_strategy, STRATEGIES),
        ):
            if value not in allowed:
                raise ValueError(f"model.{key} is {value!r}; choose one of {', '.join(allowed)}.")
        if self.checkpoint and (self.language_model or self.language_config):
            raise ValueError(
                "model.checkpoint is a complete LLaVA; remove it, or remove language_model and "
                "language_config."
            )
        if not (self.checkpoint or self.language_model or self.language_config):
            raise ValueError(
                "model names no language model: set checkpoint (a complete LLaVA), language_model "
                "(a decoder's folder or hub name) or language_config (its architecture)."
            )
        if self.model_max_length < 1:
            raise ValueError(f"model.model_max_length is {self.model_max_length}; it must be >= 1.")
