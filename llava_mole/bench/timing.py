"""The clock of arms that are timed side by side in one process."""

import time
from collections.abc import Callable
from typing import Any

import torch

Times = dict[str, list[tuple[float, float]]]  # arm -> (judged clock, wall clock) of each round


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
