"""``load_run``: a trained run, a LLaVA checkpoint, or a hub name into a model that answers."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from transformers import BitsAndBytesConfig, LlavaProcessor

from llava_mole.model.build import build_model
from llava_mole.model.config import ModelConfig
from llava_mole.model.processor import build_processor, load_processor
from llava_mole.model.projector import PROJECTOR_FILE, load_projector

RUN_CONFIG = "config.yaml"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load_run(
    run_dir: str | Path,
    model_base: str | None = None,
    load_4bit: bool = False,
    load_8bit: bool = False,
    device: str = "cpu",
    conv_mode: str | None = None,
) -> tuple[nn.Module, LlavaProcessor]:
    """Model and processor of a run, ready for `llava_mole.generate.answer`.

    Args:
        run_dir: a run directory or one of its ``checkpoint-N`` (a ``config.yaml`` there or one
            above, with ``adapter_model.safetensors`` or ``projector.safetensors``), or a complete
            LLaVA checkpoint in transformers' layout (folder or hub name).
        model_base: language model to use in place of the one the run's config names, as where it
            was moved (``--model-base``).
        load_4bit: the language model's linears in nf4 (bitsandbytes).
        load_8bit: the same in int8.
        device: where to put the model.
        conv_mode: template in place of the run's own.

    Raises:
        ValueError: nothing loadable there, or weights that don't fit.
    """
    if load_4bit and load_8bit:
        raise ValueError("--load-4bit and --load-8bit exclude each other; give one.")
    if (load_4bit or load_8bit) and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("4- and 8-bit models need bitsandbytes: pip install 'llava_mole[quant]'")
    if model_base and Path(model_base).is_absolute() and not Path(model_base).exists():
        raise ValueError(f"--model-base {model_base}: no such folder.")
    run_dir = Path(run_dir)
    config_file = next(
        (f for f in (run_dir / RUN_CONFIG, run_dir.parent / RUN_CONFIG) if f.is_file()), None
    )
    if config_file is None:
        config = _checkpoint_config(run_dir, model_base, device)
    else:
        config = _run_config(config_file, model_base)
    if conv_mode:
        config = replace(config, conv_mode=conv_mode)
    adapter = (run_dir / ADAPTER_CONFIG).is_file()
    projector = (run_dir / PROJECTOR_FILE).is_file()
    if config_file is not None and not (adapter or projector):
        checkpoints = sorted(place.name for place in run_dir.glob("checkpoint-*"))
        remedy = (
            f"give one of its checkpoints ({', '.join(checkpoints)})"
            if checkpoints
            else "start its training again, which goes on where it stopped"
        )
        raise ValueError(
            f"{run_dir}: has {RUN_CONFIG} but neither {ADAPTER_WEIGHTS} with {ADAPTER_CONFIG} nor "
            f"{PROJECTOR_FILE}; the run has not finished: {remedy}."
        )
    if projector or (adapter and _saves_projector(run_dir)):
        # Stage 1's file may be gone by now; what the run ended with is loaded below.
        config = replace(config, projector=None)
    model = build_model(config, device, _quantization(load_4bit, load_8bit, config.dtype))
    if projector:
        load_projector(model, run_dir / PROJECTOR_FILE)
    if adapter:
        model = _load_adapter(model, run_dir)
    if (run_dir / "processor_config.json").is_file():
        mode = conv_mode or (config.conv_mode if config.checkpoint else None)
        processor = load_processor(run_dir, mode)
    else:
        processor = build_processor(config)
    return model.eval(), processor


def _run_config(path: Path, model_base: str | None) -> ModelConfig:
    try:
        section = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("model")
        config = ModelConfig(**section)
    except (yaml.YAMLError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: no usable model section ({error}); give a run directory that this version "
            "of llava-mole wrote."
        ) from error
    if model_base and config.checkpoint:
        return replace(config, checkpoint=model_base)
    return replace(config, language_model=model_base) if model_base else config


def _checkpoint_config(source: Path, model_base: str | None, device: str) -> ModelConfig:
    # The colon of a Windows drive apart, a hub name is at most owner/name.
    if not source.exists() and (source.is_absolute() or len(source.parts) > 2):
        raise ValueError(f"--model-path {source}: no such folder; give a run or a checkpoint.")
    if source.exists() and not (source / "config.json").is_file():
        raise ValueError(
            f"--model-path {source}: neither {RUN_CONFIG} (a run) nor config.json (a LLaVA "
            "checkpoint) is there; give the run's output_dir."
        )
    if model_base:
        raise ValueError(
            f"--model-base is for runs that hold an adapter; {source} is complete, leave it out."
        )
    dtype = "bfloat16" if torch.device(device).type == "cuda" else "float32"
    return ModelConfig(checkpoint=str(source), dtype=dtype)


def _saves_projector(run_dir: Path) -> bool:
    saved = json.loads((run_dir / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return any("multi_modal_projector" in name for name in saved.get("modules_to_save") or [])


def _load_adapter(model: nn.Module, run_dir: Path) -> PeftModel:
    """Attaches the adapter and holds its file to every weight that it must have."""
    weights = run_dir / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise ValueError(f"{run_dir}: {ADAPTER_CONFIG} is there but {ADAPTER_WEIGHTS} is not.")
    try:
        model = PeftModel.from_pretrained(model, run_dir)
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"{weights} does not fit this base model ({error}); check --model-base."
        ) from error
    with safe_open(weights, framework="pt") as file:
        missing = sorted(set(get_peft_model_state_dict(model)) - set(file.keys()))
    if missing:
        raise ValueError(
            f"{weights}: {len(missing)} of the adapter's weights are missing, the first "
            f"{missing[0]!r}; take another checkpoint of the run."
        )
    return model


def _quantization(load_4bit: bool, load_8bit: bool, dtype: str) -> BitsAndBytesConfig | None:
    """LLaVA's settings; the tower and the projector keep their precision."""
    if not (load_4bit or load_8bit):
        return None
    return BitsAndBytesConfig(
        load_in_4bit=load_4bit,
        load_in_8bit=load_8bit,
        # Matched against the start or the end of a module's full name.
        llm_int8_skip_modules=["model.vision_tower", "model.multi_modal_projector", "lm_head"],
        bnb_4bit_compute_dtype=getattr(torch, dtype),
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
    )
