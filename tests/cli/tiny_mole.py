"""A finetuned run of a tiny LLaVA with untrained experts, and a question set, for commands."""

import json
from pathlib import Path

import yaml
from peft import get_peft_model
from PIL import Image

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


def write_set(folder: Path, questions: int = 5) -> Path:
    """LLaVA JSONL of ``questions`` about images of different colours; three answers are yes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(questions):
        Image.new("RGB", (30, 20), (50 * index, 200, 30)).save(folder / f"{index}.png")
        turns = [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "yes" if index < 3 else "no"},
        ]
        rows.append({"id": str(index), "image": f"{index}.png", "conversations": turns})
    file = folder / "set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
