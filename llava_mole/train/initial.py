"""Starting from an earlier run's adapter and projector: ``adapter.init_from``.

As where stage 1 trains an adapter beside the projector (``stage: finetune`` on stage 1's data) and
stage 2 goes on from both.
"""

from pathlib import Path
from typing import Any

from torch import nn

from llava_mole.config import load
from llava_mole.model.load import RUN_CONFIG
from llava_mole.train.config import RunConfig
from llava_mole.train.weights import ADAPTER_FILE, load_trained

# What the weights mean hangs on these: shapes, names, and α, without which a LoRA's output would
# jump where training goes on.
_SAME = ("type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")
_SAME_OF_MOLE = ("num_experts", "router_bias", "route_by_image")
_SAME_MODEL = ("checkpoint", "language_model", "vision_tower", "vision_feature_layer")


def refuse_another_adapter(config: RunConfig) -> None:
    """Holds ``adapter.init_from`` to the config, before anything is built or loaded.

    Raises:
        ValueError: no adapter is trained, another projector is named, no such run, or the run's
            adapter or base model is another one; names the key and the remedy.
    """
    adapter = config.adapter
    if adapter.init_from is None:
        return
    if config.stage != "finetune" or adapter.type == "none":
        raise ValueError(
            f"adapter.init_from is {adapter.init_from}, and stage {config.stage!r} with "
            f"adapter.type {adapter.type!r} trains no adapter; remove it, or set stage to finetune "
            "and adapter.type to mole or lora."
        )
    folder = Path(adapter.init_from)
    before = _config_of(folder)
    if config.model.projector is not None:
        raise ValueError(
            f"model.projector is {config.model.projector} and adapter.init_from "
            f"{adapter.init_from}, which brings the projector that it was trained with; set "
            "model.projector to null."
        )
    keys = [f"adapter.{key}" for key in _SAME]
    if adapter.type == "mole":
        keys += [f"adapter.{key}" for key in _SAME_OF_MOLE]
    keys += [f"model.{key}" for key in _SAME_MODEL]
    for key in keys:
        if (old := before.get(key)) != (new := config.get(key)):
            raise ValueError(
                f"adapter.init_from: {folder} was trained with {key} {_shown(old)}, and here it is "
                f"{_shown(new)}; set {key} to {_shown(old)}, or start from another run."
            )


def load_initial(model: nn.Module, config: RunConfig) -> None:
    """Fills adapter and projector from ``adapter.init_from``; does nothing on the meta device.

    Raises:
        ValueError: the file lacks a weight, or has one too many.
    """
    shapes_only = next(model.parameters()).device.type == "meta"
    if config.adapter.init_from is not None and not shapes_only:
        load_trained(model, Path(config.adapter.init_from))


def _config_of(folder: Path) -> RunConfig:
    """The config of a run, or of the run that a checkpoint is of."""
    file = next(
        (f / RUN_CONFIG for f in (folder, folder.parent) if (f / RUN_CONFIG).is_file()), None
    )
    missing = RUN_CONFIG if file is None else None
    if missing is None and not (folder / ADAPTER_FILE).is_file():
        missing = ADAPTER_FILE
    if missing is not None:
        raise ValueError(
            f"adapter.init_from: {folder} has no {missing}; give the directory of a finished run "
            "that trained an adapter, or one of its checkpoint-N."
        )
    return load(RunConfig, file)


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)
