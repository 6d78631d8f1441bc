"""What tests run in processes of their own; imports little, so that those start quickly."""

import os
import time

from llava_mole.bench import memory


def hold(megabytes: int, children: int) -> int:
    """Fills memory here and in child processes that share nothing."""
    held = bytearray(b"1") * (megabytes * 2**20)
    if children:
        memory.in_fresh_process(hold, megabytes, children - 1)
    time.sleep(0.8)
    return held[0]


def fail() -> None:
    raise KeyError("the reason")


def die() -> None:
    os._exit(3)
