"""Tiny training runs for tests: a random LLaVA and a few coloured squares, all made on the spot."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from llava_mole.config import from_dict
from llava_mole.train.config import RunConfig
from tests.tiny import tiny_model_section

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def write_dataset(folder: Path, name: str, samples: int, seed: int, text_only_every: int = 0):
    """LLaVA JSON of ``samples`` questions about coloured squares, lengths varying."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(samples):
        colour = list(COLOURS)[rng.integers(3)]
        answer = " and ".join([colour] * int(rng.integers(1, 5)))
        question = "Which colour" + " is it" * int(rng.integers(1, 4)) + "?"
        row = {"id": f"{name}-{index}", "conversations": []}
        if not text_only_every or index % text_only_every:
            noise = rng.integers(0, 40, (20, 24, 3))
            pixels = (np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)
            row["image"] = f"images/{name}-{index}.png"
            Image.fromarray(pixels).save(folder / row["image"])
            question = f"<image>\n{question}"
        row["conversations"] = [
            {"from": "human", "value": question},
            {"from": "gpt", "value": answer},
        ]
        rows.append(row)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def run_values(folder: Path, stage: str = "finetune", **train) -> dict:
    """A run config as plain values: two data sets of 24 and 16 samples, global batches of 8.

    In finetuning every third sample of ``mixed`` is text alone.
    """
    data = folder / f"{stage}_data"
    if not data.exists():
        write_dataset(data, "squares", 24, 0)
        write_dataset(data, "mixed", 16, 1, text_only_every=3 if stage == "finetune" else 0)
    domains = {
        "general": {"datasets": [{"name": "squares", "path": str(data / "squares.json")}]},
        "document": {
            "weight": 2.0,
            "datasets": [{"name": "mixed", "path": str(data / "mixed.json")}],
        },
    }
    return {
        "model": {
            **tiny_model_section(folder),
            "conv_mode": "plain" if stage == "pretrain" else "vicuna_v1",
        },
        "adapter": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "gate_scaling": "prob"},
        "data": {"domains": domains, "cache_dir": str(folder / "cache")},
        "stage": stage,
        "output_dir": str(folder / "run"),
        "seed": 7,
        "train": {
            "learning_rate": 3e-3,
            "warmup_steps": 2,
            "max_steps": 4,
            "global_batch_size": 8,
            "per_device_train_batch_size": 4,
            "logging_steps": 1,
            "save_steps": 0,
            "use_cpu": True,
            "disable_tqdm": True,
            **train,
        },
    }


def run_config(folder: Path, stage: str = "finetune", **train) -> RunConfig:
    """`run_values` as a `RunConfig`."""
    return from_dict(RunConfig, run_values(folder, stage, **train), "test")
