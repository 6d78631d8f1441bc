"""A small open data set and what reads it, for this room's tests."""

import json
from pathlib import Path

import yaml

from llava_mole.data.config import DatasetConfig
from llava_mole.data.prepared.recordset import open_dataset
from llava_mole.data.tokens.encode import Encoder
from llava_mole.model.templates import template_for
from tests import tiny
from tests.data.helpers import row, write_images, write_jsonl

QUESTION = "Was ist das? 这是什么 👩 \x1b[31m \u202e"
ANSWER = 'é "猫" <b>&amp;</b>\nnext </s> <image>'


def rows() -> list[dict]:
    """A good row with text of every kind, one with two images, one that is too long, two bad."""
    several = row("two", question="<image> Compare.", answer="Same.")
    several["image"] = ["0.png", "1.png"]
    return [
        row("<i>&'\"", question=QUESTION, answer=ANSWER) | {"source": "a", "task": "t"},
        several | {"source": "b"},
        row("long", question="w" * 1200) | {"source": "b"},
        row("gone", image="gone.png") | {"source": "b"},
        row("slotless") | {"image": ["0.png", "1.png"], "source": "a"},
        row("text", image=None) | {"source": "b"},
    ]


def make(folder: Path) -> Path:
    """Images, ``set.jsonl`` and a run config that names it; returns the config."""
    write_images(folder, 2)
    write_jsonl(folder / "set.jsonl", rows())
    config = {
        "model": tiny.tiny_model_section(folder),
        "data": {
            "domains": {
                "d": {
                    "weight": 0.5,
                    "datasets": [{"name": "mine", "path": str(folder / "set.jsonl")}],
                }
            },
            "cache_dir": str(folder / "cache"),
        },
        "stage": "finetune",
        "train": {"global_batch_size": 1, "per_device_train_batch_size": 1},
        "output_dir": str(folder / "run"),
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def opened(path: Path, cache: Path):
    """The data set of a file."""
    return open_dataset(DatasetConfig("mine", str(path)), cache_dir=cache)


def encoder(max_length: int = 1024, conv_mode: str = "vicuna_v1", **fields) -> Encoder:
    """An encoder over the byte-level tokenizer, P = 4."""
    tokenizer = tiny.tiny_tokenizer()
    template = template_for(conv_mode, tokenizer)
    return Encoder(tokenizer, template, tiny.NUM_IMAGE_TOKENS, max_length, **fields)


def write_json(path: Path, values: list, **options) -> Path:
    """A JSON array."""
    path.write_text(json.dumps(values, **options))
    return path
