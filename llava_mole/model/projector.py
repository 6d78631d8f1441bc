"""The projector's weights: ours (``projector.safetensors``) and LLaVA's (``mm_projector.bin``)."""

import os
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from llava_mole.model.vision import read_state_dict

PROJECTOR_FILE = "projector.safetensors"
LLAVA_FILE = "mm_projector.bin"
# LLaVA counts the activation as layer 1 of its nn.Sequential.
_NAME = re.compile(
    r"(?:^|\.)(?:mm_projector\.(?P<llava>[02])|linear_(?P<hf>[12]))\.(?P<part>weight|bias)$"
)


def projector_of(model: nn.Module) -> nn.Module:
    """The ``multi_modal_projector`` of a LLaVA, also below a PEFT wrapper."""
    for name, module in model.named_modules():
        if name.endswith("multi_modal_projector"):
            wrapped = getattr(module, "modules_to_save", None)
            return module if wrapped is None else wrapped[module.active_adapters[0]]
    raise ValueError(f"{type(model).__name__} has no multi_modal_projector; give a LLaVA model.")


def save_projector(model: nn.Module, folder: str | Path) -> Path:
    """Writes ``folder/projector.safetensors`` in one step, in the weights' own dtype."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        f"multi_modal_projector.{name}": tensor.detach().cpu().contiguous()
        for name, tensor in projector_of(model).state_dict().items()
    }
    path = folder / PROJECTOR_FILE
    partial = path.with_suffix(".partial")
    save_file(state, partial, metadata={"format": "pt"})
    os.replace(partial, path)
    return path


def load_projector(model: nn.Module, path: str | Path) -> Path:
    """Fills the projector from a file or a run directory and returns the file read.

    Args:
        model: a LLaVA.
        path: LLaVA's ``mm_projector.bin``, a ``.safetensors`` file, or a directory with
            ``projector.safetensors`` or ``mm_projector.bin``.

    Raises:
        ValueError: nothing there, another kind of projector, or other shapes.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / n for n in (PROJECTOR_FILE, LLAVA_FILE) if (path / n).is_file()]
        if not found:
            raise ValueError(
                f"model.projector: {path} has neither {PROJECTOR_FILE} nor {LLAVA_FILE}; give the "
                "run directory of a finished stage 1."
            )
        path = found[0]
    if not path.is_file():
        raise ValueError(f"model.projector: {path} does not exist; train stage 1 first.")
    state = {}
    for key, tensor in read_state_dict(path, "model.projector").items():
        if match := _NAME.search(key):
            number = match["hf"] or {"0": "1", "2": "2"}[match["llava"]]
            state[f"linear_{number}.{match['part']}"] = tensor
    projector = projector_of(model)
    for name, parameter in projector.named_parameters():
        if name not in state:
            raise ValueError(
                f"model.projector: {path} has no {name}; it must hold LLaVA-1.5's two-layer MLP "
                "(mlp2x_gelu)."
            )
        if state[name].shape != parameter.shape:
            raise ValueError(
                f"model.projector: in {path} {name} is {tuple(state[name].shape)}, but this model "
                f"needs {tuple(parameter.shape)}; it was trained for another vision tower or "
                "language model."
            )
    with torch.no_grad():
        for name, parameter in projector.named_parameters():
            parameter.copy_(state[name])
    return path
