"""What several commands read in the same way: run configs, data sets, question sets, the device."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path


def add_data(parser: argparse.ArgumentParser, config_help: str, config_required: bool) -> None:
    """Adds FILE, ``--image-root``, ``--config`` and ``--cache-dir``, see `run_config`."""
    parser.add_argument("file", nargs="?", help="prepared folder, LLaVA JSON or JSONL")
    parser.add_argument(
        "--image-root",
        metavar="DIR",
        help="with FILE: folder of the images (default: the folder's own, or FILE's)",
    )
    parser.add_argument("--config", metavar="RUN.yaml", required=config_required, help=config_help)
    parser.add_argument(
        "--cache-dir", metavar="DIR", help="where conversions are kept (~/.cache/llava_mole)"
    )


def check_data(arguments: argparse.Namespace, command: str) -> None:
    """Raises ValueError where FILE, ``--image-root`` and ``--config`` don't go together."""
    if not arguments.file and not arguments.config:
        raise ValueError(f"{command}: give a FILE, --config RUN.yaml, or both")
    if arguments.image_root and not arguments.file:
        raise ValueError(f"{command}: --image-root goes with a FILE; the config has its own")


def run_config(arguments: argparse.Namespace):
    """The run config that ``--config`` names; with FILE, of that data set instead of its own."""
    from llava_mole.config import load
    from llava_mole.data.config import DomainConfig, EvalConfig
    from llava_mole.train.config import RunConfig

    config = load(RunConfig, arguments.config)
    if arguments.cache_dir:
        config.data.cache_dir = arguments.cache_dir
    if arguments.file:
        dataset = file_config(arguments)
        config.data.domains = {dataset.name: DomainConfig(datasets=[dataset])}
        config.data.eval = EvalConfig()
    return config


def file_config(arguments: argparse.Namespace):
    """FILE and ``--image-root`` as a `DatasetConfig` that bears the file's name."""
    from llava_mole.data.config import DatasetConfig

    name = os.path.basename(os.path.normpath(arguments.file))
    return DatasetConfig(name, arguments.file, arguments.image_root)


def encoder_of(config):
    """The `Encoder` of a run config."""
    from llava_mole.model.processor import build_processor
    from llava_mole.train.encoder import encoder_for

    return encoder_for(config.model, build_processor(config.model), config.data.overlong)


def named_paths(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``NAME=PATH`` arguments by name, in order.

    Raises:
        ValueError: one that is not written so, a name that is a path, or one that stands twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not name or not path or Path(name).name != name:
            raise ValueError(f"{option} {pair!r}: write it as NAME=FILE, the name not a path")
        if name in found:
            raise ValueError(f"{option}: {name!r} is named twice")
        found[name] = path
    return found


def open_image(path: str, option: str):
    """The image at a path the user typed, within the limits set for training images.

    Raises:
        ValueError: no such file, or no image that those limits allow; names option and path.
    """
    from llava_mole.data.images.read import load_image

    # Resolved first: those limits keep a data set inside its folder, not a user out of theirs.
    location = os.path.realpath(os.path.expanduser(path))
    if not os.path.isfile(location):
        raise ValueError(f"{option} {path}: no such file")
    try:
        return load_image(os.path.basename(location), os.path.dirname(location))
    except ValueError as error:
        raise ValueError(f"{option} {path}: {error}") from None


def open_sets(pairs: Sequence[str], option: str, image_root: str | None = None) -> dict:
    """Opens every ``NAME=FILE`` as a `RecordSet`.

    Raises:
        ValueError: a pair that is not one, a name given twice, a missing file, or bad records.
    """
    from llava_mole.data.config import DatasetConfig
    from llava_mole.data.prepared.recordset import open_dataset

    opened = {}
    for name, file in named_paths(pairs, option).items():
        records = open_dataset(DatasetConfig(name, file, image_root))
        if records.problems:
            raise ValueError(
                f"{option} {name}={file}: {len(records.problems)} bad record(s), the first: "
                f"{records.problems[0]}; 'llava-mole data check {file}' lists them all"
            )
        if not len(records):
            raise ValueError(f"{option} {name}={file}: no records in {file}")
        opened[name] = records
    return opened


def device_of(name: str | None) -> str:
    """The device a command was given, else a GPU where there is one.

    Raises:
        ValueError: no such device here.
    """
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"--device {name!r}: write cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name!r}: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs"
        )
    return str(device)
