"""The shipped rows on a tiny random model and coloured squares: a whole table in seconds."""

import shutil
from pathlib import Path

import yaml

from tests.train.tiny_run import run_values, write_dataset

CONFIGS = Path(__file__).parents[2] / "configs"
DOMAINS = ("general", "document", "biomedicine")


MORE = tuple(f"{domain}-short" for domain in DOMAINS)


def write_beyond(folder: Path, **scale) -> Path:
    """`write_experiments` with three further domains, and with a stage 1 that rows may change."""
    more = {}
    for number, name in enumerate(MORE, start=3):
        train = write_dataset(folder / "data" / name, name, 16, number)
        test = write_dataset(folder / "bench" / name, "test", 6, 10 + number)
        test = test.rename(test.with_suffix(".jsonl"))
        more[name] = {
            "datasets": [{"name": name, "path": str(train)}],
            "benchmarks": [{"name": name, "path": str(test), "limit": 4, "max_new_tokens": 4}],
            "columns": [name],
        }
    experiments = write_experiments(folder, more=more, stage_1="tiny/pretrain.yaml", **scale)
    values = yaml.safe_load((experiments / "tiny/finetune.yaml").read_text())
    values |= {"stage": "pretrain", "seed": 3}
    values["train"] |= {"max_steps": 3, "learning_rate": 1e-3}
    (experiments / "tiny/pretrain.yaml").write_text(yaml.safe_dump(values))
    return experiments


def write_experiments(folder: Path, **scale) -> Path:
    """A copy of the shipped configs with a scale ``tiny`` that runs anywhere.

    Three domains of 16 samples, questions about other squares; ranks an eighth of the paper's.

    Args:
        folder: takes configs, data and runs.
        **scale: more keys of the scale's file.

    Returns:
        The copy's ``experiments``.
    """
    skip = shutil.ignore_patterns("tiny", "tiny.yaml")
    shutil.copytree(CONFIGS, folder / "configs", ignore=skip)
    experiments = folder / "configs/experiments"
    values = run_values(folder, max_steps=-1, save_steps=2)
    values["data"]["domains"] = {}
    for number, name in enumerate(DOMAINS):
        train = write_dataset(folder / "data" / name, name, 16, number)
        values["data"]["domains"][name] = {"datasets": [{"name": name, "path": str(train)}]}
        test = write_dataset(folder / "bench" / name, "test", 6, 10 + number)
        test.rename(test.with_suffix(".jsonl"))
    del values["output_dir"]
    values["output_dir"] = "unused"
    values["adapter"] = {"lora_dropout": 0.1, "gate_scaling": "prob"}
    (experiments / "tiny").mkdir()
    (experiments / "tiny/finetune.yaml").write_text(yaml.safe_dump(values))
    benchmarks = [{"name": name, "path": str(folder / "bench"), "limit": 4} for name in DOMAINS]
    text = {
        "name": "tiny",
        "label": "TINY SCALE: a random model on coloured squares",
        "columns": {name: [name] for name in DOMAINS},
        "benchmarks": benchmarks,
        "output": str(folder / "out"),
        "put_on": "tiny/finetune.yaml",
        "rank_32": 4,
        "seeds": [0, 1],
        "processes": 2,
        "routed": 4,
        "keep_runs": False,
        "batch_size": 4,
        **scale,
    }
    (experiments / "tiny.yaml").write_text(yaml.safe_dump(text))
    return experiments
