"""A finetuned run of a tiny LLaVA with untrained experts, for commands that load one."""

from pathlib import Path

import yaml
from peft import get_peft_model

from llava_mole import MoleConfig
from llava_mole.model import ModelConfig, build_model, build_processor
from tests import tiny


def write_run(folder: Path, name: str = "run", **config) -> Path:
    """Writes the run below ``folder``; ``config`` goes into its ``config.yaml``."""
    section = tiny.tiny_model_section(folder)
    model_config = ModelConfig(**section)
    adapter = MoleConfig(num_experts=3, r=2, modules_to_save=["multi_modal_projector"])
    run = folder / name
    get_peft_model(build_model(model_config), adapter).save_pretrained(run)
    build_processor(model_config).save_pretrained(run)
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "model": section}))
    return run
