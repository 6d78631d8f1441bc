"""What runs are and cost, without data, GPU or network: steps, samples per λ, hours, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from llava_mole.data.mixture import Mixture, Part
from llava_mole.eval.paper import DOMAINS
from llava_mole.model.build import build_model
from llava_mole.reproduce.cost import ASSUMPTION, Weights, gpu_hours, weights_met
from llava_mole.reproduce.runs import Run, stages_of, summary
from llava_mole.reproduce.scales import Scale
from llava_mole.reproduce.store import Store, as_json
from llava_mole.train.adapter import attach
from llava_mole.train.config import RunConfig
from llava_mole.train.dryrun import GIB, memory_terms, mixture_of, steps_of
from llava_mole.train.rundir import finished


@dataclass(frozen=True)
class Sizes:
    """What the model of a run is, counted on meta.

    Attributes:
        trained: parameters that train, projector included.
        weights: that a token meets.
        memory: bytes on each GPU.
    """

    trained: int
    weights: Weights
    memory: float


@dataclass(frozen=True)
class Planned:
    """One run of a plan; what is not known without data, or at this scale, is None.

    Attributes:
        run: the run.
        steps: optimizer steps.
        samples: domain to samples of the whole run, by λ and epochs.
        sizes: at paper scale.
        hours: kind of GPU to hours, at paper scale.
        seconds: of training and evaluation together, from finished runs of the scale.
        done: whether it has results.
    """

    run: Run
    steps: int | None
    samples: Mapping[str, int] | None
    sizes: Sizes | None
    hours: Mapping[str, float] | None
    seconds: float | None
    done: bool


def plan(runs: Sequence[Run], scale: Scale, store: Store) -> list[Planned]:
    """Plans every run.

    Raises:
        ValueError: what would keep a run from starting and can be known here.
    """
    sizes: dict[str, Sizes] = {}
    pace = _pace(store)
    found = []
    for run in runs:
        done = store.get(run) is not None
        if run.config is None:
            found.append(Planned(run, None, None, None, None, None, done))
            continue
        steps, samples = _data(run.config, scale)
        if steps is None:
            steps = _steps_of_another_seed(run, store)
        size = hours = seconds = None
        if scale.put_on is None:
            key = repr((run.config.model, run.config.adapter))
            if key not in sizes:
                sizes[key] = _sizes(run.config, scale.ranks)
            size = sizes[key]
            if samples is not None:
                hours = gpu_hours(sum(samples.values()), size.weights)
        elif pace is not None and steps is not None:
            seconds = pace[0] * steps + pace[1]
        found.append(Planned(run, steps, samples, size, hours, seconds, done))
    return found


def text(planned: Sequence[Planned], scale: Scale, processes: int) -> str:
    """The plan for people."""
    paper = scale.put_on is None
    head = ["run", "rows", "steps", f"samples: {' + '.join(DOMAINS)}"]
    head += ["trains", "GiB/GPU", "A100-h", "H200-h"] if paper else ["seconds"]
    rows = [[*head, "done"]]
    rows += [_row(one, paper) for one in planned]
    left = [one for one in planned if not one.done]
    lines = [scale.label, "", *_columns(rows), ""]
    lines.append(f"{len(planned)} runs, {len(planned) - len(left)} of them done")
    if paper:
        known = [one.hours for one in left if one.hours is not None]
        sums = {kind: sum(hours[kind] for hours in known) for kind in ("A100", "H200")}
        text = ", ".join(f"{hours:,.0f} {kind}-hours" for kind, hours in sums.items())
        lines += [f"left to do: {text}, evaluation not counted", ASSUMPTION]
        lines.append(
            f"GiB/GPU: on {scale.ranks} GPUs, as 'llava-mole train --dry-run' adds it up, the "
            "activations of a full row an estimate; the paper's dense experts took more."
        )
    else:
        lines += _time(left, processes)
    lines += [
        f"stage 1 first, once, not counted: {names[0]}'s, {stage.config.train.max_steps:,} steps"
        if stage.config.train.max_steps > 0
        else f"stage 1 first, once, not counted: {names[0]}'s"
        for stage, names in stages_of(one.run for one in left)
        if not finished(stage.folder)
    ]
    return "\n".join(lines)


def _time(left: Sequence[Planned], processes: int) -> list[str]:
    """How long a small scale's runs will take, and for how many that is not known, and why."""
    lines = []
    if known := [one.seconds for one in left if one.seconds is not None]:
        minutes = sum(known) / 60
        lines.append(
            f"left to do: {minutes:,.1f} min of one process, {minutes / processes:,.1f} min on "
            f"{processes} (from the finished runs' time a step)"
        )
    unknown = [one for one in left if one.seconds is None and one.run.config is not None]
    if stepless := [one for one in unknown if one.steps is None]:
        lines.append(
            f"time of {len(stepless)} runs: unknown, as their steps hang on data that is not here "
            f"(first {stepless[0].run.name})"
        )
    if len(unknown) > len(stepless):
        lines.append("time: not measured, as no run of this scale is finished")
    return lines


def _data(config: RunConfig, scale: Scale) -> tuple[int | None, dict[str, int] | None]:
    _, mixture = mixture_of(config)
    if mixture is None:
        mixture = _resampled(config)
    if mixture is None:
        return None, None
    per_epoch, steps = steps_of(config, mixture, scale.ranks)
    samples = dict.fromkeys(config.data.domains, 0)
    counts = mixture.counts(0)
    for part in mixture.parts:
        samples[part.domain] += counts[part.name]
    passes = steps / per_epoch if per_epoch else 0
    return steps, {name: round(count * passes) for name, count in samples.items()}


def _resampled(config: RunConfig) -> Mixture | None:
    """The mixture of data that is not here, if every set is resampled: its size does not matter."""
    domains = config.data.drawn().domains
    sets = [(name, group, d) for name, group in domains.items() for d in group.datasets]
    if any(d.resample is None for _, _, d in sets):
        return None
    parts = [
        Part(name, d.name, d.resample, group.weight * d.weight, d.resample)
        for name, group, d in sets
    ]
    return Mixture(parts, config.seed)


def _steps_of_another_seed(run: Run, store: Store) -> int | None:
    """The steps that the row took with another seed."""
    settings = as_json(summary(run))
    for line in store.lines.values():
        if set(line["rows"]) & set(run.rows) and line["config"] == settings and line.get("steps"):
            return line["steps"]
    return None


def _sizes(config: RunConfig, ranks: int) -> Sizes:
    model = build_model(config.model, device="meta")
    with torch.device("meta"):
        model = attach(model, config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    memory = sum(value for value, _ in memory_terms(config, model, ranks))
    return Sizes(trained, weights_met(model, config.adapter), memory)


def _pace(store: Store) -> tuple[float, float] | None:
    """Seconds a step, and seconds an evaluation, of the finished runs that were never stopped."""
    whole = [
        line
        for line in store.lines.values()
        if line.get("steps") and (line.get("seconds") or {}).get("attempts") == 1
    ]
    if not whole:
        return None
    train = sum(line["seconds"]["train"] for line in whole)
    steps = sum(line["steps"] for line in whole)
    return train / steps, sum(line["seconds"].get("eval", 0) for line in whole) / len(whole)


def _row(one: Planned, paper: bool) -> list[str]:
    unknown = "?"
    if one.run.config is None:
        cells = [one.run.rows[0], ", ".join(one.run.rows), "-", "evaluated only"]
        return [*cells, *(["-"] * (4 if paper else 1)), "yes" if one.done else ""]
    samples = unknown
    if one.samples is not None:
        samples = _by_domain(one.samples)
    steps = unknown if one.steps is None else f"{one.steps:,}"
    cells = [one.run.name, ", ".join(one.run.rows), steps, samples]
    if paper:
        hours = one.hours or {}
        cells += [f"{one.sizes.trained:,}", f"{one.sizes.memory / GIB:.1f}"]
        cells += [f"{hours[kind]:,.0f}" if kind in hours else unknown for kind in ("A100", "H200")]
    else:
        cells.append("?" if one.seconds is None else f"{one.seconds:.0f}")
    return [*cells, "yes" if one.done else ""]


def _by_domain(samples: Mapping[str, int]) -> str:
    """In the paper's order; domains that are not its own are named."""
    known = [f"{samples.get(name, 0):,}" for name in DOMAINS]
    return " + ".join(
        [*known, *(f"{n:,} {name}" for name, n in samples.items() if name not in DOMAINS)]
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
