"""A stage 1 of a row's own: trained once, shared by all rows and seeds that go on from it.

A row's ``stage_1`` changes the scale's stage 1, say its rate. One of ``stage: finetune`` trains the
row's adapter beside the projector, and the row's run goes on from both.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava_mole.reproduce.identity import identity, sha256
from llava_mole.reproduce.lock import held, holder
from llava_mole.reproduce.put_on import stage_1_config
from llava_mole.reproduce.rows import RowFile
from llava_mole.reproduce.scales import Scale
from llava_mole.train import rundir
from llava_mole.train.callbacks import METRICS
from llava_mole.train.config import RunConfig, TrainConfig

_FOLDER = "stage_1"
# The loss is the mean over this last part of the log: one line is a few batches.
_LAST = 0.1


@dataclass(frozen=True)
class Stage1:
    """A stage 1 that some rows go on from.

    Attributes:
        hash: SHA-256 of all that can change its result, in hex.
        config: what is trained, into a place of its own.
    """

    hash: str
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Its run directory; it stays, as later seeds go on from it too."""
        return Path(self.config.output_dir)

    @property
    def trains_adapter(self) -> bool:
        """Whether it trains more than the projector."""
        return self.config.stage == "finetune"

    def continued(self, config: RunConfig) -> RunConfig:
        """A second stage's config that goes on from here."""
        place = str(self.folder)
        model = replace(config.model, projector=None if self.trains_adapter else place)
        adapter = replace(config.adapter, init_from=place if self.trains_adapter else None)
        return replace(config, model=model, adapter=adapter)

    def summary(self) -> dict[str, Any]:
        """What a reader of results wants to know of it, as JSON values."""
        usual = dataclasses.asdict(TrainConfig())
        train = {
            key: value
            for key, value in dataclasses.asdict(self.config.train).items()
            if f"train.{key}" not in rundir.FREE and value != usual[key]
        }
        return {"trains_adapter": self.trains_adapter, "train": train}


def stage_1_of(scale: Scale, item: RowFile, output: Path | None) -> Stage1 | None:
    """The stage 1 of a row's own; None where it starts as every row does.

    Args:
        scale: where it is run.
        item: the row.
        output: folder that run directories go to; None for the scale's.
    """
    if item.stage_1 is None:
        return None
    config = rundir.resolve(stage_1_config(scale, item))
    key = sha256(identity(config))
    folder = (output or Path(scale.output)) / _FOLDER / key[:12]
    return Stage1(key, replace(config, output_dir=str(folder)))


def train_stage_1(stage: Stage1) -> None:
    """Trains it unless that is done; waits where another process is at it."""
    from llava_mole.train.run import train

    with held(stage.folder, patience=math.inf):
        if not rundir.finished(stage.folder):
            train(replace(stage.config, train=replace(stage.config.train, disable_tqdm=True)))


def state_of(stage: Stage1) -> str:
    """``done``, ``running`` or ``waiting``."""
    if rundir.finished(stage.folder):
        return "done"
    return "running" if holder(stage.folder) else "waiting"


def start_of(config: RunConfig) -> dict[str, Any] | None:
    """What a result line keeps of the stage 1 that a run went on from; None if that is not here.

    Returns:
        ``loss``, cross-entropy in nats a token, the mean over the last tenth of its log (None where
        it was no number), and ``steps``.
    """
    place = config.adapter.init_from or config.model.projector
    if place is None or not (file := Path(place) / METRICS).is_file():
        return None
    lines = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    logged = [line for line in lines if "loss_lm" in line]
    if not logged:
        return None
    last = [line["loss_lm"] for line in logged[-max(1, math.ceil(_LAST * len(logged))) :]]
    loss = None if None in last else round(sum(last) / len(last), 4)
    return {"loss": loss, "steps": lines[-1]["step"]}
