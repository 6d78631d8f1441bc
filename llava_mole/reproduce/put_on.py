"""A row on a scale: the run config that comes of both, and of the row's stage 1.

At paper scale a row's file is run as it is; at a smaller one its delta, what it says itself, is put
on the scale's own run config, ranks, rates and epochs in proportion.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llava_mole.config import ConfigError, from_layers, load, read_values
from llava_mole.reproduce.rows import RowFile
from llava_mole.reproduce.scales import PAPER_RANK, PAPER_RATE, Scale
from llava_mole.train.config import RunConfig, TrainConfig


class NotAtScale(ConfigError):
    """A row that a scale has nothing to put it on for; it is left out there.

    Args:
        file: the row's.
        reason: why.
    """

    def __init__(self, file: Path | None, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.reason = reason


def run_config(scale: Scale, item: RowFile) -> RunConfig:
    """The run config of a trained row, with the seed of its base and the scale's usual stage 1.

    Raises:
        NotAtScale: a rank that the scale's ``rank_32`` gives no whole number for, a domain that it
            has no data of, or a stage 1 of the row's own where the scale names none.
        ConfigError: a delta that does not fit the scale's base.
    """
    if item.stage_1 is not None and scale.stage_1 is None:
        raise NotAtScale(
            item.file,
            f"a stage 1 of its own, and scale {scale.name} names no stage_1 that this could change",
        )
    if scale.put_on is None:
        _refuse_unknown_domains([read_values(item.file)], item, scale)
        return load(RunConfig, item.file, scale.overrides)
    layers = [scale.base, _more(item, scale), _scaled(item, scale)]
    _refuse_unknown_domains(layers, item, scale)
    return from_layers(RunConfig, layers, scale.overrides, f"{item.file} on {scale.put_on}")


def stage_1_config(scale: Scale, item: RowFile) -> RunConfig:
    """The run config of the stage 1 that a row changes.

    With ``stage: finetune`` it trains the row's own adapter beside the projector, as the second
    stage can only go on from the same.

    Raises:
        ConfigError: changes that do not fit the scale's stage 1.
    """
    origin = f"{item.file}, stage_1, on {scale.stage_1}"
    config = from_layers(RunConfig, [scale.stage_1_base, item.stage_1], (), origin)
    if config.stage == "finetune":
        config.adapter = run_config(scale, item).adapter
    return config


def domains_named(item: RowFile) -> list[str]:
    """The domains that a row's file names, whatever their weight."""
    return list((item.delta.get("data") or {}).get("domains") or {})


def _more(item: RowFile, scale: Scale) -> dict[str, Any]:
    """The data of those of the scale's further domains that the row names."""
    named = domains_named(item)
    domains = {
        name: {"datasets": [vars(dataset) for dataset in more.datasets]}
        for name, more in scale.more.items()
        if name in named
    }
    return {"data": {"domains": domains}}


def _refuse_unknown_domains(
    layers: Sequence[Mapping[str, Any]], item: RowFile, scale: Scale
) -> None:
    known = {
        name: None
        for layer in layers
        for name, domain in ((layer.get("data") or {}).get("domains") or {}).items()
        if isinstance(domain, Mapping) and domain.get("datasets")
    }
    for name in domains_named(item):
        if name not in known:
            raise NotAtScale(
                item.file,
                f"data.domains.{name}: scale {scale.name} has no data of this domain; it has "
                f"{', '.join(known) or 'none'}",
            )


def _scaled(item: RowFile, scale: Scale) -> dict[str, Any]:
    """The row's delta with the scale's ranks, rates and epochs."""
    delta = copy.deepcopy(dict(item.delta))
    adapter = delta["adapter"]
    for key in ("r", "lora_alpha"):
        adapter[key] = _in_proportion(adapter[key], scale, item.file)
    for key in ("rank_pattern", "alpha_pattern"):
        patterns: Mapping[str, int] = adapter.get(key) or {}
        if patterns:
            adapter[key] = {k: _in_proportion(v, scale, item.file) for k, v in patterns.items()}
    train, usual = delta["train"], {**asdict(TrainConfig()), **scale.base.get("train", {})}
    for key in ("learning_rate", "router_lr"):
        if key in train:
            rate = train[key] / PAPER_RATE * (usual[key] or usual["learning_rate"])
            train[key] = float(f"{rate:.6g}")
    if train.get("freeze_mm_mlp_adapter"):
        # The base's own rate for the projector would have nothing to apply to.
        train["mm_projector_lr"] = None
    train["num_train_epochs"] *= scale.epochs
    return delta


def _in_proportion(rank: int, scale: Scale, file: Path | None) -> int:
    value, rest = divmod(rank * scale.rank_32, PAPER_RANK)
    if rest:
        raise NotAtScale(
            file,
            f"{rank} at rank_32 = {scale.rank_32} of scale {scale.name} is no whole number; choose "
            "another rank_32",
        )
    return value
