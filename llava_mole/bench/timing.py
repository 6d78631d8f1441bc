"""Arms timed side by side in one process, and their ratios to one of them.

Every round runs all of them in shuffled order, so that a busy machine slows all of them; what is
judged is the ratio within one round, its median over rounds.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from llava_mole.bench.figures import Figure

Arm = TypeVar("Arm")
Times = dict[str, list[tuple[float, float]]]  # arm -> (judged clock, wall clock) of each round
Quartiles = tuple[float, float, float]  # lower quartile, median, upper quartile
JUDGED, WALL = 0, 1


def rounds(
    arms: Mapping[str, Arm],
    work: Callable[[Arm], Any],
    count: int,
    device: str,
    prepare: Callable[[Arm], Any] | None = None,
    turns: int = 1,
) -> Times:
    """Times ``work(arm)`` of every arm, in shuffled order, after one round to warm up.

    Args:
        arms: name -> what ``work`` is called with.
        work: what is timed.
        count: rounds.
        device: ``cpu`` or ``cuda``, see `clocked`.
        prepare: called with the arm before each ``work``, on nobody's clock.
        turns: how often a round calls every arm, shuffled anew each time; for work so short that
            the machine's mood changes more slowly than the arms.

    Returns:
        Seconds of one call, the mean over a round's turns, of every arm and round.
    """
    shuffle = random.Random(0).shuffle
    order = list(arms)
    times: Times = {name: [] for name in arms}
    for number in range(count + 1):
        sums = dict.fromkeys(arms, (0.0, 0.0))
        for _ in range(turns):
            shuffle(order)
            for name in order:
                if prepare is not None:
                    prepare(arms[name])
                own, wall = clocked(lambda arm=arms[name]: work(arm), device)
                sums[name] = (sums[name][JUDGED] + own, sums[name][WALL] + wall)
        if number:  # the first round warms up
            for name, (own, wall) in sums.items():
                times[name].append((own / turns, wall / turns))
    return times


def ratios(times: Times, bar: str, clock: int = JUDGED) -> dict[str, Quartiles]:
    """Every arm's time over the bar's, within one round: quartiles over rounds.

    Args:
        times: of at least two rounds.
        bar: name of the arm that all are divided by.
        clock: `JUDGED` or `WALL`.
    """
    found = {}
    for name, spent in times.items():
        values = [mine[clock] / its[clock] for mine, its in zip(spent, times[bar], strict=True)]
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        found[name] = (low, middle, high)
    return found


def ratio_figure(
    what: str, times: Times, name: str, bar: str, target: float | None = None, note: str = ""
) -> Figure:
    """One arm's time over the bar's, with quartiles, and the arm's own time.

    Args:
        what: what was timed.
        times: of `rounds`.
        name: the arm.
        bar: the arm that it is divided by.
        target: the largest ratio that is wanted.
        note: what else there is to say.
    """
    quartiles = ratios({name: times[name], bar: times[bar]}, bar)[name]
    wall = ratios({name: times[name], bar: times[bar]}, bar, WALL)[name]
    notes = [f"{1000 * statistics.median(own for own, _ in times[name]):.4g} ms"]
    if name != bar:
        low, middle, high = quartiles
        notes.append(f"{middle:.3f} (quartiles {low:.3f}-{high:.3f})")
        notes.append(f"wall clock {wall[1]:.3f}")
    note = ", ".join([*notes, note] if note else notes)
    return Figure(
        f"{what}, {name} / {bar}", quartiles[1], "x", target, note=note, quartiles=quartiles
    )


def clocked(work: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds of CPU, or between two CUDA events, and seconds on the wall's clock."""
    if not device.startswith("cuda"):
        wall, own = time.perf_counter(), time.process_time()
        work()
        return time.process_time() - own, time.perf_counter() - wall
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    wall = time.perf_counter()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end) / 1000, time.perf_counter() - wall
