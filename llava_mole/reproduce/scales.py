"""A scale: what rows are put on, how long and how often they are trained, and what they are asked.

``EXPERIMENTS/NAME.yaml`` is read into `Scale`. At paper scale a row's file is run as it is; at a
smaller one its delta (`llava_mole.reproduce.rows`) is put on the scale's own run config.
"""

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llava_mole.config import ConfigError, from_layers, load, read_values
from llava_mole.reproduce.rows import RowFile
from llava_mole.train.config import RunConfig

# The rank of the paper's Table 1; a scale says what stands for it.
PAPER_RANK = 32


@dataclass
class Asked:
    """One benchmark, and how it is asked.

    Attributes:
        name: as `llava-mole eval` knows it.
        path: folder that holds it.
        limit: only the first so many questions of each part.
        style: prompt style, ``llava`` or ``authors``.
        suffix: put behind each question.
    """

    name: str
    path: str
    limit: int | None = None
    style: Literal["llava", "authors"] = "llava"
    suffix: str = ""

    @property
    def label(self) -> str:
        """Its folder and its key in ``results.json``."""
        return self.name if self.limit is None else f"{self.name}.first{self.limit}"


@dataclass
class Scale:
    """What a scale's file says.

    Attributes:
        name: the file's.
        label: stands above everything that is reported, so that no figure is taken for another
            scale's.
        columns: domain to the columns that claims and tables compare.
        benchmarks: what each run is asked.
        shown: further columns that the benchmarks give, shown in tables alone.
        put_on: run config below every row's delta, relative to the file; null runs the row's file
            as it is.
        rank_32: the rank that stands for the paper's 32; other ranks and α follow in proportion.
        epochs: what one epoch of the paper is here.
        overrides: ``dotted.key=value`` over every row.
        seeds: of the runs of a row.
        processes: runs side by side.
        ranks: GPUs that a run is planned for.
        launch: how runs are started: ``local`` (in processes of this command), or written down for
            ``torchrun``, ``hostfile`` or ``slurm``.
        keep_runs: whether run directories stay after their results are written down.
        batch_size: questions that are answered at once.
        routed: questions of each benchmark whose routing is counted; 0 counts none.
        prepare: the command that makes data and base model, named where they are missing.
        output: folder of runs, reports and results.
        results: file of results; null means ``results.jsonl`` in ``output``.
        report: folder of the whole study's report; null means ``report`` in ``output``, where the
            reports of parts are in any case.
    """

    name: str
    label: str
    columns: dict[str, list[str]]
    benchmarks: list[Asked]
    output: str
    shown: list[str] = field(default_factory=list)
    put_on: str | None = None
    rank_32: int = PAPER_RANK
    epochs: float = 1.0
    overrides: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [42])
    processes: int = 1
    ranks: int = 1
    launch: Literal["local", "torchrun", "hostfile", "slurm"] = "local"
    keep_runs: bool = True
    batch_size: int = 16
    routed: int = 0
    prepare: str = ""
    results: str | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for values no scale can have."""
        for key in ("rank_32", "processes", "ranks", "batch_size"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)}; it must be >= 1.")
        if self.epochs <= 0:
            raise ValueError(f"epochs is {self.epochs}; it must be > 0.")
        if not self.benchmarks or not self.columns or not self.seeds:
            raise ValueError("benchmarks, columns and seeds must each name one at least.")
        names = self.all_columns
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"column {name!r} stands twice in columns and shown.")

    @property
    def all_columns(self) -> list[str]:
        """Those of the domains, then those that are only shown."""
        return [name for names in self.columns.values() for name in names] + self.shown


def read_scale(experiments: Path, name: str) -> Scale:
    """The scale of that name.

    Raises:
        ConfigError: no such scale, or a file that is not as it must be.
    """
    file = experiments / f"{name}.yaml"
    if not file.is_file():
        known = scales(experiments)
        near = difflib.get_close_matches(name, known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
        raise ConfigError(f"--scale {name}: no {file}; {remedy}")
    scale = load(Scale, file)
    if scale.name != name:
        raise ConfigError(f"{file}: its name is {scale.name!r}; call it {name!r}, like the file")
    if scale.put_on is not None:
        scale.put_on = str(file.parent / scale.put_on)
        read_values(scale.put_on)
    return scale


def scales(experiments: Path) -> list[str]:
    """The names of the scales there are."""
    return sorted(path.stem for path in experiments.glob("*.yaml") if path.stem != "claims")


def run_config(scale: Scale, item: RowFile) -> RunConfig:
    """The run config of a trained row, with the seed of its base.

    Raises:
        ConfigError: a delta that does not fit the scale's base, or a rank that the scale's
            ``rank_32`` gives no whole number for.
    """
    if scale.put_on is None:
        return load(RunConfig, item.file, scale.overrides)
    layers = [read_values(scale.put_on), _scaled(item, scale)]
    return from_layers(RunConfig, layers, scale.overrides, f"{item.file} on {scale.put_on}")


def _scaled(item: RowFile, scale: Scale) -> dict[str, Any]:
    """The row's delta with the scale's ranks and epochs."""
    delta = copy.deepcopy(dict(item.delta))
    adapter = delta["adapter"]
    for key in ("r", "lora_alpha"):
        adapter[key] = _in_proportion(adapter[key], scale, item.file)
    for key in ("rank_pattern", "alpha_pattern"):
        patterns: Mapping[str, int] = adapter.get(key) or {}
        if patterns:
            adapter[key] = {k: _in_proportion(v, scale, item.file) for k, v in patterns.items()}
    delta["train"]["num_train_epochs"] *= scale.epochs
    return delta


def _in_proportion(rank: int, scale: Scale, file: Path | None) -> int:
    value, rest = divmod(rank * scale.rank_32, PAPER_RANK)
    if rest:
        raise ConfigError(
            f"{file}: {rank} at rank_32 = {scale.rank_32} of scale {scale.name} is no whole "
            "number; choose another rank_32"
        )
    return value
