"""Makes what the tiny scale trains on: data, base model, stage 1, the images' features."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from llava_mole.config import load
from llava_mole.model.identity import weights_of
from llava_mole.model.small_parts import prepare_efficientnet
from llava_mole.reproduce.scales import Scale
from llava_mole.reproduce.tiny.base import build_base
from llava_mole.reproduce.tiny.data import build_data
from llava_mole.reproduce.tiny.short import build_short
from llava_mole.train.config import RunConfig
from llava_mole.train.features import cache_features
from llava_mole.train.run import train

DATA = Path("playground/data/tiny")


def prepare(experiments: Path, scale: Scale) -> None:
    """Makes what is missing, some three minutes on two cores; does nothing where all is there.

    Base model and stage 1 are the ones of ``scale.base_model``; without it they are trained.

    Args:
        experiments: folder with ``tiny/pretrain.yaml``.
        scale: the tiny one.

    Raises:
        ValueError: a package that data or image encoder come from is missing.
    """
    stage_1 = load(RunConfig, experiments / "tiny" / "pretrain.yaml")
    decoder = Path(stage_1.model.language_model)
    build_data(DATA)
    build_short(DATA)
    prepare_efficientnet(stage_1.model.vision_pretrained)
    if scale.base_model is not None:
        _copy(Path(scale.base_model) / "decoder", decoder)
        _copy(Path(scale.base_model) / "pretrain", Path(stage_1.output_dir))
    build_base(stage_1, decoder)
    train(stage_1)
    # As the runs are: features that differ in their last bits alone end in other scores.
    with _one_thread():
        cache_features(stage_1)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _copy(folder: Path, place: Path) -> None:
    """Copies a folder in one step; what is there stays, and is named where it is another model."""
    if place.exists():
        if weights_of(place) != weights_of(folder):
            print(
                f"note: {place} holds other weights than {folder}, which the shipped results rest "
                "on, and stays; remove it to start from those",
                file=sys.stderr,
            )
        return
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    partial.rename(place)
