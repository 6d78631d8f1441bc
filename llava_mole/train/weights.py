"""What training changed, out of the model and back into it, strictly by name.

In finetuning that is PEFT's adapter file with LoRA, experts, routers and projector; in stage 1 the
projector alone. Never the frozen base.
"""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from llava_mole.model.projector import PROJECTOR_FILE, load_projector

ADAPTER_FILE = "adapter_model.safetensors"
_PROJECTOR = "multi_modal_projector."


def trained_state(model: nn.Module, accelerator) -> dict[str, torch.Tensor]:
    """Copies of what a run has to bring along, by name, on the CPU; empty on ranks other than 0.

    All trainable parameters, and the projector that PEFT saves beside an adapter, which a run may
    have left frozen (``freeze_mm_mlp_adapter``). Collective where parameters are sharded (ZeRO-3,
    FSDP).
    """
    saved = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or ".modules_to_save." in name
    }
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is not None and plugin.zero_stage == 3:
        import deepspeed

        state = {}
        for name, parameter in saved.items():
            with deepspeed.zero.GatheredParameters([parameter]):
                if accelerator.is_main_process:
                    state[name] = _copy(parameter)
        return state
    if getattr(accelerator.state, "fsdp_plugin", None) is not None:
        full = accelerator.get_state_dict(model)
        return {name: _copy(full[name]) for name in saved if name in full}
    return {n: _copy(p) for n, p in saved.items()} if accelerator.is_main_process else {}


def save_trained(model: nn.Module, state: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes `trained_state` as an adapter or as ``projector.safetensors`` below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        # Embeddings are frozen; "auto" would ask the hub whether they were resized.
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
        return
    named = {_PROJECTOR + name.partition(_PROJECTOR)[2]: value for name, value in state.items()}
    assert all(_PROJECTOR in name for name in state), "stage 1 trains the projector alone"
    save_file(named, folder / PROJECTOR_FILE, metadata={"format": "pt"})


def load_trained(model: nn.Module, folder: Path) -> None:
    """Fills the trained parameters from ``folder``.

    Raises:
        ValueError: a parameter is missing in the file, or the file has one too many.
    """
    if not isinstance(model, PeftModel):
        load_projector(model, folder)
        return
    path = folder / ADAPTER_FILE
    state = load_file(path)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    if odd := sorted(state.keys() ^ expected.keys()):
        what = "lacks" if odd[0] in expected else "has the unknown"
        raise ValueError(
            f"{path}: {what} {odd[0]} (and {len(odd) - 1} more); it was trained with another "
            "adapter or model config."
        )
    set_peft_model_state_dict(model, state)


def checkpoint_bytes(model: nn.Module, sharded: bool) -> int:
    """About what a checkpoint takes: the weights and AdamW's two moments, with a tenth to spare.

    Args:
        model: its trainable parameters are counted.
        sharded: DeepSpeed's files hold the weights and their float32 masters as well.
    """
    total = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            # ZeRO-3 leaves an empty tensor behind and the full size in ds_numel.
            size = getattr(parameter, "ds_numel", parameter.numel())
            total += size * (parameter.element_size() * (2 if sharded else 1) + 8)
            total += 4 * size if sharded else 0
    return int(1.1 * total) + 16 * 2**20


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
