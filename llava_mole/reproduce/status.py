"""Where each run stands."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from llava_mole.reproduce.line import NotReady, line_of
from llava_mole.reproduce.lock import Held, held, holder
from llava_mole.reproduce.runs import Run, stages_of
from llava_mole.reproduce.scales import Scale
from llava_mole.reproduce.stage1 import state_of
from llava_mole.reproduce.store import Store
from llava_mole.reproduce.worker import FAILED
from llava_mole.train import rundir


def collect(runs: Sequence[Run], scale: Scale, store: Store) -> Iterator[tuple[Run, str | None]]:
    """Writes down the results of runs that were trained and asked elsewhere, as by SLURM.

    Yields:
        A run with results, and why they can't be written down: None where they are now.
    """
    for run in runs:
        if store.get(run) is not None or not run.folder.is_dir():
            continue
        with suppress(Held, NotReady), held(run.folder, patience=0):
            line = line_of(run, scale)
            try:
                store.add(line)
            except ValueError as error:
                yield run, str(error)
            else:
                yield run, None


def state(run: Run, store: Store) -> tuple[str, str]:
    """``done``, ``running``, ``failed``, ``half-finished`` or ``waiting``, and a remark."""
    if store.get(run) is not None:
        return "done", ""
    if who := holder(run.folder):
        return "running", who
    failed = run.folder / FAILED
    if failed.is_file():
        lines = failed.read_text(encoding="utf-8").strip().splitlines()
        return "failed", lines[-1] if lines else ""
    if run.config is not None and rundir.finished(run.folder):
        return "half-finished", "trained, not asked everything yet"
    steps = [_step(path) for path in run.folder.glob("checkpoint-*")]
    if steps:
        return "half-finished", f"goes on from step {max(steps):,}"
    return "waiting", ""


def text(runs: Sequence[Run], store: Store) -> str:
    """All runs with their states, and how many there are of each."""
    states = [(run, *state(run, store)) for run in runs]
    width = max((len(run.name) for run in runs), default=0)
    lines = [
        f"{run.name:{width}}  {how:13}  {', '.join(run.rows)}{f'  ({remark})' if remark else ''}"
        for run, how, remark in states
    ]
    counts: dict[str, int] = {}
    for _, how, _ in states:
        counts[how] = counts.get(how, 0) + 1
    lines += [
        f"stage 1 of {', '.join(names)}: {state_of(stage)}" for stage, names in stages_of(runs)
    ]
    return "\n".join([*lines, "", ", ".join(f"{count} {how}" for how, count in counts.items())])


def refuse_missing(runs: Sequence[Run], scale: Scale) -> None:
    """Raises ValueError where data, base model or questions that ``runs`` need are not there."""
    if lines := missing(runs):
        remedy = f"\nMake it first: {scale.prepare}" if scale.prepare else ""
        raise ValueError("missing:\n" + "\n".join(lines) + remedy)


def missing(runs: Sequence[Run]) -> list[str]:
    """What ``runs`` need and is not there, a line each: key, path, and the rows that need it."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for what in _missing(run):
            found.setdefault(what, []).append(run.rows[0])
    lines = []
    for what, names in found.items():
        named = list(dict.fromkeys(names))
        more = f" and {len(named) - 3} more rows" if len(named) > 3 else ""
        lines.append(f"  {what}, for {', '.join(named[:3])}{more}")
    return lines


def _missing(run: Run) -> list[str]:
    wanted = [(f"benchmark {asked.name}", asked.path) for asked in run.asked]
    configs = [] if run.config is None else [run.config]
    if run.stage_1 is not None:
        configs.append(run.stage_1.config)
    for config in configs:
        model = config.model
        parts = ("projector", "language_model", "vision_pretrained")
        if run.stage_1 is not None:
            # It is made on the way.
            parts = parts[1:]
        named = [(f"model.{part}", getattr(model, part)) for part in parts]
        # A hub's name or a tag of open_clip has fewer slashes.
        wanted += [(what, path) for what, path in named if path and path.count("/") > 1]
        wanted += [
            (f"data set {dataset.name}", dataset.path)
            for domain in config.data.drawn().domains.values()
            for dataset in domain.datasets
        ]
    return [f"{what}: {path}" for what, path in wanted if not Path(path).exists()]


def _step(checkpoint: Path) -> int:
    try:
        return int(checkpoint.name.removeprefix("checkpoint-"))
    except ValueError:
        return 0
