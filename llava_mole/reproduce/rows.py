"""The rows of the paper's tables and of ours, each a small YAML file.

``EXPERIMENTS/TABLE/NAME.yaml`` says in its own words what sets the row apart (λ, adapter, experts,
rank, routing, epochs) and names the config of ``configs/`` that it builds on. What it says itself,
its delta, can be put on another base: that is what a scale does. A row that is another row's run
has that row's file as ``base`` and says nothing else. ``stage_1`` is what a row of ours changes in
the stage 1 that its projector comes from (`llava_mole.reproduce.stage1`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_mole.config import ConfigError, nearest, read_values
from llava_mole.eval.paper import DOMAINS, Printed, Setting, printed_rows, setting_of
from llava_mole.reproduce.types import PlainLora, Row

PAPER_TABLES = ("2", "3", "4", "5")
# Of the paper's Table 2: not trained by the authors.
OFFICIAL = {
    1: ("llava-1.5-official", "evaluated", "llava-hf/llava-1.5-7b-hf"),
    2: ("llava-med-official", "quoted", None),
}


@dataclass(frozen=True)
class RowFile:
    """A row, and what it is made from.

    Attributes:
        row: the row.
        file: its YAML file; None for one that is not trained.
        delta: what the file says itself, bases outside the experiments left out.
        checkpoint: hub name of what is evaluated instead of trained.
        stage_1: what it changes in stage 1; None where it starts as every row does.
    """

    row: Row
    file: Path | None
    delta: Mapping[str, Any]
    checkpoint: str | None = None
    stage_1: Mapping[str, Any] | None = None


def read_rows(experiments: Path) -> list[RowFile]:
    """All rows below ``experiments``: the paper's tables in its order, then ours by name.

    Folders are tables; one that is named like a scale's file beside it (``tiny/``, ``tiny.yaml``)
    holds what belongs to that scale.

    Raises:
        ConfigError: a file that can't be read, that does not say what a row must, or that is no row
            of the table it lies in.
        ValueError: no such folder.
    """
    if not experiments.is_dir():
        raise ValueError(f"--experiments {experiments}: no such folder; configs/experiments is one")
    found = [_official(printed) for printed in printed_rows() if printed.setting is None]
    folders = [
        path
        for path in sorted(experiments.iterdir())
        if path.is_dir() and not path.with_suffix(".yaml").is_file()
    ]
    for folder in folders:
        table = folder.name.removeprefix("table")
        rows = [_read(file, table, experiments) for file in sorted(folder.glob("*.yaml"))]
        found += sorted(rows, key=lambda item: (item.row.number or 0, item.row.name))
    order = {table: place for place, table in enumerate(PAPER_TABLES)}
    return sorted(found, key=lambda item: (order.get(item.row.table, len(order)), item.row.table))


def find(rows: Sequence[RowFile], name: str) -> RowFile:
    """The row of that name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    for item in rows:
        if item.row.name == name:
            return item
    names = sorted({item.row.name for item in rows})
    raise ValueError(f"no row is named {name!r}; {nearest(name, names)}")


def _official(printed: Printed) -> RowFile:
    name, kind, checkpoint = OFFICIAL[printed.number]
    row = Row("2", printed.number, name, printed.row.model, printed.row.scores, kind)
    return RowFile(row, None, {}, checkpoint)


def _read(file: Path, table: str, experiments: Path) -> RowFile:
    delta = read_values(file, within=experiments)
    delta.pop("output_dir", None)
    stage_1 = delta.pop("stage_1", None)
    _check_stage_1(stage_1, file, table)
    setting = _setting(file, delta)
    title = (delta.get("train") or {}).pop("run_name", None)
    if table not in PAPER_TABLES:
        plain = None if stage_1 else _plain(delta)
        row = Row(table, None, file.stem, title or file.stem, {}, "trained", plain)
        return RowFile(row, file, delta, stage_1=stage_1)
    for printed in printed_rows():
        if str(printed.table) == table and printed.setting == setting:
            title = _title(table, setting, printed.row.model)
            scores = printed.row.scores
            row = Row(table, printed.number, file.stem, title, scores, "trained", _plain(delta))
            return RowFile(row, file, delta)
    raise ConfigError(
        f"{file}: {setting} is no row of the paper's Table {table}; correct the file, or put it "
        "into a folder of its own, such as controls/"
    )


def _plain(delta: Mapping[str, Any]) -> PlainLora | None:
    """How a plain LoRA of one rank is trained, all else as in every row; None for other rows."""
    adapter, train = delta["adapter"], delta["train"]
    only = {"type", "r", "lora_alpha"}
    if adapter["type"] != "lora" or set(adapter) != only or set(train) != {"num_train_epochs"}:
        return None
    domains = delta["data"]["domains"]
    weights = {name: domain.get("weight", 1.0) for name, domain in domains.items()}
    drawn = {name: weight for name, weight in weights.items() if weight}
    return PlainLora(drawn, adapter["r"], train["num_train_epochs"])


def _check_stage_1(stage_1: Any, file: Path, table: str) -> None:
    """Raises ConfigError for a ``stage_1`` that is nothing, or in a table of the paper."""
    if stage_1 is None:
        return
    if not isinstance(stage_1, dict) or not stage_1:
        raise ConfigError(
            f"{file}: stage_1: {stage_1!r} changes nothing; give keys of a run config, such as "
            "train: {learning_rate: 5.0e-2}, or remove it"
        )
    if "output_dir" in stage_1:
        raise ConfigError(f"{file}: stage_1.output_dir: it has a place of its own; remove the key")
    if "adapter" in stage_1:
        raise ConfigError(
            f"{file}: stage_1.adapter: stage 2 goes on from it, so it is the row's own; remove the "
            "key, and say stage: finetune where stage 1 trains the adapter too"
        )
    if table in PAPER_TABLES:
        raise ConfigError(
            f"{file}: stage_1: no row of the paper's Table {table} has a stage 1 of its own; put "
            "it into a folder of ours, such as beyond/"
        )


def _setting(file: Path, delta: Mapping[str, Any]) -> Setting | None:
    """The paper's name for what the delta says.

    Raises:
        ConfigError: it leaves something to its base that another scale's base would not say.
    """
    adapter, train = delta.get("adapter") or {}, delta.get("train") or {}
    domains = (delta.get("data") or {}).get("domains") or {}
    wanted = ["type", "r", "lora_alpha"]
    if adapter.get("type") == "mole":
        wanted += ["num_experts", "routing", "gate_scaling"]
    missing = [f"adapter.{key}" for key in wanted if key not in adapter]
    missing += [
        f"data.domains.{name}.weight"
        for name in DOMAINS
        if "weight" not in (domains.get(name) or {})
    ]
    if "num_train_epochs" not in train:
        missing.append("train.num_train_epochs")
    if missing:
        raise ConfigError(
            f"{file}: a row's file must say {missing[0]} itself, so that the row is the same on "
            "every scale's base; add it"
        )
    return setting_of(delta)


def _title(table: str, setting: Setting, model: str) -> str:
    weights = ",".join(f"{weight:g}" for weight in setting.weights)
    if table == "3":
        return f"{model}[{weights.rpartition(',')[0]}]-R{setting.r}"
    if table == "4":
        return f"{model}, K = {setting.experts}"
    if table == "5":
        kind = {None: "plain LoRA", "dense": "dense MoLE", "top1": "sparse MoLE"}[setting.routing]
        return f"{kind}[{weights}]"
    return f"{model}[{weights}]"
