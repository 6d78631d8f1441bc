"""What tests run in processes of their own; imports little, so that those start quickly."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

from llava_mole.bench import memory


def hold(megabytes: int, children: int) -> int:
    """Fills memory here and in child processes that share nothing."""
    held = bytearray(b"1") * (megabytes * 2**20)
    if children:
        memory.in_fresh_process(hold, megabytes, children - 1)
    time.sleep(0.8)
    return held[0]


def burn(seconds: float) -> float:
    """Takes CPU time; returns how much."""
    while time.process_time() < seconds:
        pass
    # Long enough to be seen once more.
    time.sleep(0.8)
    return time.process_time()


def burn_in_a_fork_server(seconds: float) -> float:
    """`burn` in two worker processes."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        return sum(pool.map(burn, [seconds, seconds]))


def fail() -> None:
    raise KeyError("the reason")


def die() -> None:
    os._exit(3)
