"""Rows and seeds to runs: what must be trained, each once however many rows it serves."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_mole.reproduce.rows import RowFile
from llava_mole.reproduce.scales import Scale, run_config
from llava_mole.train.config import RunConfig, TrainConfig
from llava_mole.train.rundir import decisive, resolve

_OF_MOLE = ("num_experts", "routing", "gate_scaling", "router_bias")
_OF_BALANCE = ("balance_norm", "balance_scope", "balance_coef")


@dataclass(frozen=True)
class Run:
    """One training run and its evaluation, or the evaluation of a checkpoint.

    Attributes:
        hash: SHA-256 of all that can change its result, in hex.
        seed: of the run.
        rows: names of the rows that it is.
        file: the first row's file; None for a checkpoint.
        config: what is trained; None for a checkpoint.
        checkpoint: hub name or folder of what is only evaluated.
        folder: run directory; the evaluation is in ``eval`` below it.
    """

    hash: str
    seed: int
    rows: tuple[str, ...]
    file: Path | None
    config: RunConfig | None
    checkpoint: str | None
    folder: Path

    @property
    def name(self) -> str:
        """For people: the first row, the seed, the hash's beginning."""
        return f"{self.rows[0]}-s{self.seed}-{self.hash[:8]}"

    @property
    def model_path(self) -> str:
        """What is evaluated."""
        return self.checkpoint or str(self.folder)


def resolve_runs(
    scale: Scale,
    rows: Sequence[RowFile],
    selected: Iterable[RowFile],
    seeds: Sequence[int],
    output: Path | None = None,
) -> list[Run]:
    """The runs that ``selected`` rows need.

    Args:
        scale: where they are run.
        rows: all rows, so that a run names every row that it serves.
        selected: the rows that are asked for.
        seeds: of the runs.
        output: folder that run directories go to; None for the scale's.

    Raises:
        ConfigError: see `run_config`.
        ValueError: two rows of one name that are different runs.
    """
    wanted = {id(item) for item in selected}
    found: dict[str, Run] = {}
    needed: dict[str, None] = {}
    names: dict[tuple[str, int], str] = {}
    folders: set[Path] = set()
    for item in rows:
        for run in _runs(scale, item, seeds, output):
            seed = run.seed
            if names.setdefault((item.row.name, seed), run.hash) != run.hash:
                raise ValueError(
                    f"{item.file}: another table has a row {item.row.name!r} too, and it is "
                    "another run; give one of them another name"
                )
            if before := found.get(run.hash):
                both = tuple(dict.fromkeys([*before.rows, *run.rows]))
                run = dataclasses.replace(before, rows=both)
            elif run.folder in folders:
                # Of a row that this one builds on and that it differs from.
                run = _moved(run, run.folder.with_name(run.name))
            folders.add(run.folder)
            found[run.hash] = run
            if id(item) in wanted:
                needed[run.hash] = None
    return [found[key] for key in needed]


def hashes(scale: Scale, item: RowFile, seeds: Sequence[int]) -> dict[int, str]:
    """The row's runs: seed to hash; empty for a row that this scale does not run."""
    return {run.seed: run.hash for run in _runs(scale, item, seeds, None)}


def summary(run: Run) -> dict[str, Any]:
    """What of a run's config a reader of its results wants to know, as JSON values."""
    if run.config is None:
        return {"checkpoint": run.checkpoint}
    config = run.config
    adapter, usual = dataclasses.asdict(config.adapter), dataclasses.asdict(TrainConfig())
    kept = {key for key in adapter if key not in _idle(config) and key != "dispatch"}
    train = {
        key.removeprefix("train."): value
        for key, value in _identity(config).items()
        if key.startswith("train.") and value != usual.get(key.removeprefix("train."))
    }
    return {
        "lambda": {name: domain.weight for name, domain in config.data.domains.items()},
        "adapter": {key: value for key, value in adapter.items() if key in kept and value},
        "train": train,
    }


def _runs(scale: Scale, item: RowFile, seeds: Sequence[int], output: Path | None) -> Iterator[Run]:
    """The runs of one row, none of them shared yet."""
    folder = (output or Path(scale.output)) / "runs"
    asked = [
        {"name": a.name, "limit": a.limit, "style": a.style, "suffix": a.suffix}
        for a in scale.benchmarks
    ]
    names = (item.row.name,)
    if item.row.kind == "evaluated" and scale.put_on is None:
        # Once: a published checkpoint has no seed. Where rows are not the paper's, never.
        key = _sha256({"checkpoint": item.checkpoint, "asked": asked})
        yield Run(key, seeds[0], names, None, None, item.checkpoint, folder / item.row.name)
    if item.row.kind != "trained":
        return
    base = resolve(run_config(scale, item))
    for seed in seeds:
        config = dataclasses.replace(base, seed=seed)
        key = _sha256({"config": _identity(config), "asked": asked})
        run = Run(key, seed, names, item.file, config, None, folder)
        if scale.put_on is None and output is None:
            # The row's own folder, so that a row that was trained by hand counts.
            own = Path(base.output_dir)
            place = own if seed == base.seed else own.with_name(f"{own.name}-seed{seed}")
        else:
            place = folder / run.name
        yield _moved(run, place)


def _moved(run: Run, folder: Path) -> Run:
    config = dataclasses.replace(run.config, output_dir=str(folder))
    return dataclasses.replace(run, config=config, folder=folder)


def _identity(config: RunConfig) -> dict[str, Any]:
    """All that can change the result: what the adapter's type does not read can't.

    Nor can what is zero, empty or off, which is left out too: then a key that a later version adds,
    off unless it is set, leaves the runs of before what they are.
    """
    drawn = dataclasses.replace(config, data=config.data.drawn())
    idle = {f"adapter.{key}" for key in _idle(config)}
    if config.adapter.type != "mole":
        idle.add("train.router_lr")
    return {key: value for key, value in decisive(drawn).items() if value and key not in idle}


def _idle(config: RunConfig) -> tuple[str, ...]:
    if config.adapter.type != "mole":
        return (*_OF_MOLE, *_OF_BALANCE)
    return _OF_BALANCE if config.adapter.routing == "dense" else ()


def _sha256(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
