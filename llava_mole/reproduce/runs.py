"""Rows and seeds to runs: what must be trained, each once however many rows it serves."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_mole.reproduce.identity import identity, idle, sha256
from llava_mole.reproduce.put_on import NotAtScale, domains_named, run_config
from llava_mole.reproduce.rows import RowFile
from llava_mole.reproduce.scales import Asked, Scale
from llava_mole.reproduce.stage1 import Stage1, stage_1_of
from llava_mole.train.config import RunConfig, TrainConfig
from llava_mole.train.rundir import resolve


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
        asked: the benchmarks.
        columns: that these give.
        stage_1: what it goes on from where that is not the scale's own stage 1.
    """

    hash: str
    seed: int
    rows: tuple[str, ...]
    file: Path | None
    config: RunConfig | None
    checkpoint: str | None
    folder: Path
    asked: tuple[Asked, ...]
    columns: tuple[str, ...]
    stage_1: Stage1 | None = None

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
    left_out: dict[str, NotAtScale] | None = None,
) -> list[Run]:
    """The runs that ``selected`` rows need.

    A row that the scale has nothing to put it on for is left out.

    Args:
        scale: where they are run.
        rows: all rows, so that a run names every row that it serves.
        selected: the rows that are asked for.
        seeds: of the runs.
        output: folder that run directories go to; None for the scale's.
        left_out: takes the selected rows that are left out, by name, and why.

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
        try:
            own = list(_runs(scale, item, seeds, output))
        except NotAtScale as reason:
            if left_out is not None and id(item) in wanted:
                left_out[item.row.name] = reason
            continue
        for run in own:
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


def stages_of(runs: Iterable[Run]) -> list[tuple[Stage1, list[str]]]:
    """Each stage 1 that ``runs`` bring along, with the rows that go on from it."""
    found: dict[str, tuple[Stage1, list[str]]] = {}
    for run in runs:
        if run.stage_1 is not None:
            _, names = found.setdefault(run.stage_1.hash, (run.stage_1, []))
            names += [name for name in run.rows if name not in names]
    return list(found.values())


def summary(run: Run) -> dict[str, Any]:
    """What of a run's config a reader of its results wants to know, as JSON values."""
    if run.config is None:
        return {"checkpoint": run.checkpoint}
    config = run.config
    adapter, usual = dataclasses.asdict(config.adapter), dataclasses.asdict(TrainConfig())
    # Where it starts is a path; what is there is said by the stage 1's own summary.
    kept = {key for key in adapter if key not in (*idle(config), "dispatch", "init_from")}
    train = {
        key.removeprefix("train."): value
        for key, value in identity(config).items()
        if key.startswith("train.") and value != usual.get(key.removeprefix("train."))
    }
    found = {
        "lambda": {name: domain.weight for name, domain in config.data.domains.items()},
        "adapter": {key: value for key, value in adapter.items() if key in kept and value},
        "train": train,
    }
    return found if run.stage_1 is None else {**found, "stage_1": run.stage_1.summary()}


def _runs(scale: Scale, item: RowFile, seeds: Sequence[int], output: Path | None) -> Iterator[Run]:
    """The runs of one row, none of them shared yet."""
    folder = (output or Path(scale.output)) / "runs"
    named = domains_named(item)
    columns, benchmarks = tuple(scale.columns_with(named)), tuple(scale.asked_with(named))
    asked = [one.identity for one in benchmarks]
    names = (item.row.name,)
    if item.row.kind == "evaluated" and scale.put_on is None:
        # Once: a published checkpoint has no seed. Where rows are not the paper's, never.
        key = sha256({"checkpoint": item.checkpoint, "asked": asked})
        place = folder / item.row.name
        yield Run(key, seeds[0], names, None, None, item.checkpoint, place, benchmarks, columns)
    if item.row.kind != "trained":
        return
    base = resolve(run_config(scale, item))
    stage_1 = stage_1_of(scale, item, output)
    for seed in seeds:
        config = dataclasses.replace(base, seed=seed)
        # Before it is told where its stage 1 is, which changes no result; what that is does.
        values = {"config": identity(config), "asked": asked}
        if stage_1 is not None:
            values["stage_1"] = stage_1.hash
            config = stage_1.continued(config)
        key = sha256(values)
        run = Run(key, seed, names, item.file, config, None, folder, benchmarks, columns, stage_1)
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
