"""A run directory explains itself: its config, the versions it ran with, and whether it is done.

``config.yaml`` is the resolved config, and a run goes on only under the same one; what does not
change the result (layout, logging, number of workers) may differ.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from llava_mole.config import dump, load
from llava_mole.train import checkpoints
from llava_mole.train.card import model_card
from llava_mole.train.config import RunConfig, world_size
from llava_mole.train.weights import ADAPTER_FILE, PROJECTOR_FILE

CONFIG = "config.yaml"
VERSIONS = "versions.json"
FINISHED = "finished.json"
# May change between the parts of one run: the result stays the same.
FREE = {
    "output_dir",
    "deviations",
    "published_sizes",
    "adapter.dispatch",
    "data.num_workers",
    "data.cache_dir",
    "data.check_images",
    "data.feature_cache",
    "data.group_by_modality_length",
    "data.packing",
    "data.packing_length",
    "data.on_bad_record",
    "data.max_bad_fraction",
    "train.per_device_train_batch_size",
    "train.gradient_checkpointing",
    "train.gradient_checkpointing_every",
    "train.use_liger_kernel",
    "train.use_cpu",
    "train.tf32",
    "train.deepspeed",
    "train.ddp_timeout",
    "train.logging_steps",
    "train.save_steps",
    "train.save_total_limit",
    "train.eval_steps",
    "train.report_to",
    "train.run_name",
    "train.disable_tqdm",
}
# But where the balance loss is taken over a micro-batch: these say what one is.
_LAYOUT = {
    "data.group_by_modality_length",
    "data.packing",
    "data.packing_length",
    "train.per_device_train_batch_size",
}
_PACKAGES = (
    "llava_mole",
    "torch",
    "torchvision",
    "transformers",
    "peft",
    "accelerate",
    "deepspeed",
    "open_clip_torch",
    "datasets",
    "bitsandbytes",
)


def resolve(config: RunConfig) -> RunConfig:
    """``config`` with the global batch size written out for this launch's number of ranks."""
    train = config.train
    size = train.samples_per_step(world_size(), config.data.packing)
    train = dataclasses.replace(train, global_batch_size=size, gradient_accumulation_steps=None)
    return dataclasses.replace(config, train=train)


def differences(config: RunConfig, folder: Path) -> list[str]:
    """How ``config`` differs from the run in ``folder``, as ``key: there -> here`` lines.

    A run that has saved nothing yet (it stopped at a bad record, say) holds nobody to its config.
    """
    path = folder / CONFIG
    if not path.exists() or not (any(folder.glob("checkpoint-*")) or finished(folder)):
        return []
    before, now = (decisive(c) for c in (load(RunConfig, path), config))
    return [
        f"{key}: {before.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def decisive(config: RunConfig) -> dict[str, Any]:
    """Dotted keys to values of all that can change a run's result, so without `FREE`.

    The order of domains counts, for the mixture's order hangs on it.
    """
    values = _flat(dataclasses.asdict(config))
    values["data.domains (order)"] = list(config.data.domains)
    by_layout = config.adapter.type == "mole" and config.adapter.balance_scope == "micro_batch"
    free = FREE - _LAYOUT if by_layout else FREE
    return {
        key: value
        for key, value in values.items()
        if not any(key == name or key.startswith(f"{name}.") for name in free)
    }


def refuse_another_config(config: RunConfig) -> None:
    """Raises ValueError where ``output_dir`` holds a run with another config."""
    folder = Path(config.output_dir)
    if changed := differences(config, folder):
        raise ValueError(
            f"{folder} holds a run with another config:\n  "
            + "\n  ".join(changed)
            + "\nGive another output_dir, or delete the folder."
        )


def prepare(config: RunConfig) -> None:
    """Makes the run directory and writes config and versions.

    Raises:
        ValueError: it holds a run with another config.
    """
    refuse_another_config(config)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    dump(config, folder / CONFIG)
    _write_json(folder / VERSIONS, versions())


def versions() -> dict[str, Any]:
    """Python, packages and hardware of this process."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "ranks": world_size(),
    }


def starting_point(folder: Path, resume: str) -> tuple[Path | None, list[str]]:
    """The checkpoint to go on from, and messages about what was passed over.

    Args:
        folder: the run directory.
        resume: ``auto`` (the newest valid checkpoint, or none), ``never``, or a checkpoint's path.

    Raises:
        ValueError: ``never`` with checkpoints there, or a path that is no valid checkpoint.
    """
    if resume == "auto":
        return checkpoints.newest_valid(folder)
    if resume == "never":
        if found := sorted(path.name for path in folder.glob("checkpoint-*")):
            raise ValueError(
                f"{folder} holds {found[-1]}, and --resume never would start over beside it; give "
                "another output_dir, or delete the folder."
            )
        return None, []
    checkpoints.verify(resume)
    return Path(resume), []


def finish(config: RunConfig, steps: int, **figures: float | None) -> None:
    """Describes the run and marks it as done; written last.

    Args:
        config: of the run.
        steps: that it made.
        **figures: what else to keep of it; None says that it was not measured.
    """
    folder = Path(config.output_dir)
    card = model_card(config, steps, importlib.metadata.version("llava_mole"))
    (folder / "README.md").write_text(card, encoding="utf-8")
    files = [name for name in (ADAPTER_FILE, PROJECTOR_FILE) if (folder / name).exists()]
    sizes = {name: (folder / name).stat().st_size for name in files}
    _write_json(folder / FINISHED, {"steps": steps, **figures, "files": sizes})


def finished(folder: Path) -> bool:
    """Whether the run came to its end and its weights are still there."""
    try:
        files = json.loads((folder / FINISHED).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(files) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in files.items()
    )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix.removesuffix("."): values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat


def _write_json(path: Path, values: Any) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
