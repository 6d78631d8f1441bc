"""Vision towers from a `ModelConfig`: their config, their weights, what their pixels look like."""

from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, CLIPVisionModel, PreTrainedConfig, PreTrainedModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from llava_mole.model.config import ModelConfig
from llava_mole.model.open_clip_tower import OpenClipVisionModel, describe

HF_PREFIX = "hf:"


def vision_config(config: ModelConfig) -> PreTrainedConfig:
    """The tower's architecture, without its weights; needs no network where it is written out.

    Raises:
        ValueError: a name that open_clip doesn't know, or a tower without a class token under the
            ``default`` strategy, which would drop an image token.
    """
    if config.vision_tower.startswith(HF_PREFIX):
        result = _hf_config(config)
    else:
        result = _open_clip_config(config)
    if config.vision_feature_select_strategy == "default" and not num_prefix_tokens(result):
        raise ValueError(
            f"the vision tower {config.vision_tower!r} has no class token to drop; set "
            "model.vision_feature_select_strategy: full."
        )
    return result


def num_prefix_tokens(config: PreTrainedConfig) -> int:
    """Tokens in front of the patches: 1 for a ViT with a class token."""
    return getattr(config, "num_prefix_tokens", 0 if "siglip" in config.model_type else 1)


def build_tower(
    config: ModelConfig, tower_config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """The tower with the weights ``vision_pretrained`` names, or random ones (the caller seeds).

    Raises:
        ValueError: weights that are missing or fit another architecture.
    """
    if config.vision_tower.startswith(HF_PREFIX):
        if config.vision_config and not config.vision_pretrained:
            return AutoModel.from_config(tower_config).to(dtype)
        folder = config.vision_tower.removeprefix(HF_PREFIX)
        auto = CLIPVisionModel if tower_config.model_type.startswith("clip") else AutoModel
        try:
            return auto.from_pretrained(folder, config=tower_config, dtype=dtype)
        except OSError as error:
            raise ValueError(
                f"model.vision_tower {folder!r}: no weights can be read: {error}"
            ) from error
    tower = OpenClipVisionModel(tower_config)
    if config.vision_pretrained:
        load_visual_weights(tower, weights_file(config))
    return tower.to(dtype)


def weights_file(config: ModelConfig) -> Path:
    """The file with an open_clip tower's weights; a tag's is downloaded by open_clip."""
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg
    from open_clip.pretrained import list_pretrained_tags_by_model as tags_of

    source = config.vision_pretrained
    if Path(source).is_file():
        return Path(source)
    name = config.vision_tower
    known = get_pretrained_cfg(name, source) or get_pretrained_cfg(_base_name(name), source)
    if not known:
        tags = tags_of(name) or tags_of(_base_name(name))
        raise ValueError(
            f"model.vision_pretrained is {source!r}: neither a file nor a tag of {name!r}; "
            f"its tags: {', '.join(tags) or 'none'}."
        )
    try:
        return Path(download_pretrained(known))
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"model.vision_pretrained {source!r} of {name!r} can't be downloaded ({error}); give "
            "the path of its weights file instead."
        ) from error


def load_visual_weights(tower: OpenClipVisionModel, path: str | Path) -> None:
    """Fills a tower from a state dict of the whole open_clip model, of its image half, or of timm.

    Position embeddings of another resolution are interpolated, as open_clip does. Weights of the
    text half and of the contrastive head are left out.

    Args:
        tower: the tower to fill.
        path: ``.safetensors``, or a file that ``torch.load(weights_only=True)`` reads.

    Raises:
        ValueError: unreadable file, missing weights or other shapes.
    """
    from open_clip.model import resize_pos_embed

    path = Path(path)
    state = read_state_dict(path, "model.vision_pretrained")
    state = {k.removeprefix("module."): v for k, v in state.items()}
    if any(k.startswith("visual.") for k in state):
        state = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    elif hasattr(tower.visual, "trunk") and not any(k.startswith("trunk.") for k in state):
        state = {f"trunk.{k}": v for k, v in state.items()}
    state = {f"visual.{k}": v for k, v in state.items()}
    resize_pos_embed(state, SimpleNamespace(visual=tower.visual))
    expected = tower.state_dict()
    for name, tensor in expected.items():
        if name not in state:
            raise ValueError(
                f"{path}: no weight {name.removeprefix('visual.')!r} for the vision tower "
                f"{tower.config.model_name!r}; give the file that belongs to this architecture."
            )
        if state[name].shape != tensor.shape:
            raise ValueError(
                f"{path}: {name.removeprefix('visual.')!r} is {tuple(state[name].shape)}, but the "
                f"vision tower {tower.config.model_name!r} needs {tuple(tensor.shape)}; give the "
                "file that belongs to this architecture."
            )
    tower.load_state_dict({name: state[name] for name in expected})


def read_state_dict(path: Path, key: str) -> dict[str, torch.Tensor]:
    """Tensors from safetensors or from a pickle restricted to tensors.

    Args:
        path: the file.
        key: the config key that names it, for errors.

    Raises:
        ValueError: the file can't be read, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{key}: {path} is no readable weights file ({error}); give a .safetensors file or a "
            "state dict that torch.load(weights_only=True) accepts."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{key}: {path} holds no state dict of tensors.")
    return state


def pixel_statistics(config: ModelConfig) -> tuple[list[float], list[float]]:
    """Channel mean and deviation that the tower's pixels are normalised with."""
    from open_clip.pretrained import get_pretrained_cfg

    trained = {}
    if config.vision_pretrained and not config.vision_tower.startswith(HF_PREFIX):
        name, tag = config.vision_tower, config.vision_pretrained
        trained = get_pretrained_cfg(name, tag) or get_pretrained_cfg(_base_name(name), tag) or {}
    mean = config.image_mean or trained.get("mean", OPENAI_CLIP_MEAN)
    deviation = config.image_std or trained.get("std", OPENAI_CLIP_STD)
    return list(mean), list(deviation)


def _base_name(model_name: str) -> str:
    """open_clip lists the weights of ``X-quickgelu`` under ``X`` as well."""
    return model_name.removesuffix("-quickgelu")


def _open_clip_config(config: ModelConfig) -> PreTrainedConfig:
    import open_clip

    model_cfg = config.vision_config
    if model_cfg is None:
        model_cfg = open_clip.get_model_config(config.vision_tower)
        if model_cfg is None:
            raise ValueError(
                f"model.vision_tower is {config.vision_tower!r}, which open_clip doesn't know; "
                "see open_clip.list_models(), or describe it in model.vision_config."
            )
    elif "vision_cfg" not in model_cfg:
        raise ValueError(
            "model.vision_config has no vision_cfg: write open_clip's {embed_dim, vision_cfg: "
            f"{{...}}, quick_gelu}}; transformers' own goes with vision_tower: {HF_PREFIX}..."
        )
    if config.image_size:
        vision_cfg = {**model_cfg["vision_cfg"], "image_size": config.image_size}
        model_cfg = {**model_cfg, "vision_cfg": vision_cfg}
    return describe(config.vision_tower, model_cfg, config.vision_feature_layer)


def _hf_config(config: ModelConfig) -> PreTrainedConfig:
    folder = config.vision_tower.removeprefix(HF_PREFIX)
    if config.vision_config:
        fields = dict(config.vision_config)
        model_type = fields.pop("model_type", "clip_vision_model")
        result = AutoConfig.for_model(model_type, **fields)
    else:
        try:
            result = AutoConfig.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"model.vision_tower {folder!r}: no config.json can be read ({error}); give a CLIP "
                "folder or hub name, or its architecture in model.vision_config."
            ) from error
    result = getattr(result, "vision_config", result)
    if config.image_size and config.image_size != result.image_size:
        raise ValueError(
            f"model.image_size is {config.image_size}, but {folder!r} reads {result.image_size} px;"
            " remove image_size, or take an open_clip tower, whose positions are interpolated."
        )
    return result
