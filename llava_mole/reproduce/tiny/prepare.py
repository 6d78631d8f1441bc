"""Makes what the tiny scale trains on: data, image encoder, base model, stage 1."""

from pathlib import Path

from llava_mole.config import load
from llava_mole.model.small_parts import prepare_efficientnet
from llava_mole.reproduce.tiny.base import build_base
from llava_mole.reproduce.tiny.data import build_data
from llava_mole.reproduce.tiny.short import build_short
from llava_mole.train.config import RunConfig
from llava_mole.train.run import train

DATA = Path("playground/data/tiny")


def prepare(experiments: Path) -> None:
    """Makes what is missing, some four minutes on two cores; does nothing where all is there.

    Args:
        experiments: folder with ``tiny/pretrain.yaml``.

    Raises:
        ValueError: a package that data or image encoder come from is missing.
    """
    stage_1 = load(RunConfig, experiments / "tiny" / "pretrain.yaml")
    build_data(DATA)
    build_short(DATA)
    prepare_efficientnet(stage_1.model.vision_pretrained)
    build_base(stage_1, Path(stage_1.model.language_model))
    train(stage_1)
