"""A scale: what rows are put on, how long and how often they are trained, and what they are asked.

``EXPERIMENTS/NAME.yaml`` is read into `Scale`; `llava_mole.reproduce.put_on` makes a row's run
config of it.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llava_mole.config import ConfigError, load, nearest, read_values
from llava_mole.data.config import DatasetConfig

# The rank of the paper's Table 1; a scale says what stands for it.
PAPER_RANK = 32
# And its learning rate; a scale's own, in ``put_on``, stands for it.
PAPER_RATE = 2e-5


@dataclass
class Asked:
    """One benchmark, and how it is asked.

    Attributes:
        name: as `llava-mole eval` knows it.
        path: folder that holds it.
        limit: only the first so many questions of each part.
        style: prompt style, ``llava`` or ``authors``.
        suffix: put behind each question.
        max_new_tokens: longest answer; None means the benchmark's.
    """

    name: str
    path: str
    limit: int | None = None
    style: Literal["llava", "authors"] = "llava"
    suffix: str = ""
    max_new_tokens: int | None = None

    @property
    def label(self) -> str:
        """Its folder and its key in ``results.json``."""
        return self.name if self.limit is None else f"{self.name}.first{self.limit}"

    @property
    def identity(self) -> dict[str, Any]:
        """What of it can change a score."""
        own = {} if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens}
        names = ("name", "limit", "style", "suffix")
        return {**{name: getattr(self, name) for name in names}, **own}


@dataclass
class MoreDomain:
    """A domain beyond those of ``columns``, which a row has only if its file names it.

    Attributes:
        datasets: what it is trained on.
        benchmarks: what runs of such rows are asked beside the scale's own benchmarks.
        columns: that these give.
    """

    datasets: list[DatasetConfig]
    benchmarks: list[Asked]
    columns: list[str]


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
        stage_1: run config of stage 1, relative to the file, for rows that change it; null: such
            rows are not run at this scale.
        more: domains beyond those of ``columns``, by name.
        rank_32: the rank that stands for the paper's 32; other ranks and α follow in proportion.
        epochs: what one epoch of the paper is here.
        overrides: ``dotted.key=value`` over every row.
        seeds: of the runs of a row.
        study_seeds: of rows that no headline claim compares, in the whole study (``--study``),
            which has ten times as many rows; null means ``seeds``.
        processes: runs side by side.
        ranks: GPUs that a run is planned for.
        launch: how runs are started: ``local`` (in processes of this command), or written down for
            ``torchrun``, ``hostfile`` or ``slurm``.
        keep_runs: whether run directories stay after their results are written down.
        batch_size: questions that are answered at once.
        routed: questions of each benchmark whose routing is counted; 0 counts none.
        prepare: the command that makes data and base model, named where they are missing.
        base_model: folder with the language model (``decoder``) and stage 1 (``pretrain``) that the
            results rest on, which ``prepare`` takes; null: it trains them.
        output: folder of runs, reports and results.
        results: file of results; null means ``results.jsonl`` in ``output``.
        conflicts: file of the domains' gradient cosines, which the report holds against what
            mixtures lose; null for none.
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
    stage_1: str | None = None
    more: dict[str, MoreDomain] = field(default_factory=dict)
    rank_32: int = PAPER_RANK
    epochs: float = 1.0
    overrides: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [42])
    study_seeds: list[int] | None = None
    processes: int = 1
    ranks: int = 1
    launch: Literal["local", "torchrun", "hostfile", "slurm"] = "local"
    keep_runs: bool = True
    batch_size: int = 16
    routed: int = 0
    prepare: str = ""
    base_model: str | None = None
    results: str | None = None
    conflicts: str | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for values no scale can have."""
        for key in ("rank_32", "processes", "ranks", "batch_size"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)}; it must be >= 1.")
        if self.epochs <= 0:
            raise ValueError(f"epochs is {self.epochs}; it must be > 0.")
        if not self.benchmarks or not self.columns or not self.seeds or self.study_seeds == []:
            raise ValueError("benchmarks, columns and seeds must each name one at least.")
        if odd := sorted({*(self.study_seeds or ())} - {*self.seeds}):
            raise ValueError(
                f"study_seeds: {odd[0]} is not among seeds, so that no report would show its runs."
            )
        if both := sorted(self.more.keys() & self.columns.keys()):
            raise ValueError(f"domain {both[0]!r} stands in columns and in more; keep one.")
        names = self.columns_with(self.more)
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"column {name!r} stands twice in columns, shown and more.")

    @functools.cached_property
    def base(self) -> dict[str, Any]:
        """The values of ``put_on``, read once for all rows; empty where there is none."""
        return read_values(self.put_on) if self.put_on else {}

    @functools.cached_property
    def stage_1_base(self) -> dict[str, Any]:
        """The values of ``stage_1``, read once for all rows; empty where there is none."""
        return read_values(self.stage_1) if self.stage_1 else {}

    @property
    def all_columns(self) -> list[str]:
        """Those of the domains, then those that are only shown."""
        return [name for names in self.columns.values() for name in names] + self.shown

    def columns_with(self, domains: Collection[str]) -> list[str]:
        """`all_columns`, and those of the domains of ``more`` that are among ``domains``."""
        more = [one for name, one in self.more.items() if name in domains]
        return self.all_columns + [name for one in more for name in one.columns]

    def asked_with(self, domains: Collection[str]) -> list[Asked]:
        """``benchmarks``, and those of the domains of ``more`` that are among ``domains``."""
        more = [one for name, one in self.more.items() if name in domains]
        return self.benchmarks + [asked for one in more for asked in one.benchmarks]


def read_scale(experiments: Path, name: str) -> Scale:
    """The scale of that name.

    Raises:
        ConfigError: no such scale, or a file that is not as it must be.
    """
    file = experiments / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(f"--scale {name}: no {file}; {nearest(name, scales(experiments))}")
    scale = load(Scale, file)
    if scale.name != name:
        raise ConfigError(f"{file}: its name is {scale.name!r}; call it {name!r}, like the file")
    for key in ("put_on", "stage_1"):
        if (path := getattr(scale, key)) is not None:
            setattr(scale, key, str(file.parent / path))
    # What is wrong there is said at once.
    _ = scale.base, scale.stage_1_base
    return scale


def scales(experiments: Path) -> list[str]:
    """The names of the scales there are."""
    return sorted(path.stem for path in experiments.glob("*.yaml") if path.stem != "claims")
