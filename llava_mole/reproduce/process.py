"""What a process of runs does about itself: its output, its GPU, its end."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WATCH = 0.5


@contextmanager
def output_into(log: Path) -> Iterator[None]:
    """Sends all that this process and its libraries print to the end of ``log``."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    root, own = logging.getLogger(), logging.getLogger("llava_mole")
    root.addHandler(handler)
    own.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        sys.stdout.flush()
        sys.stderr.flush()
        for place, saved in enumerate(before, start=1):
            os.dup2(saved, place)
            os.close(saved)


def own_gpu(number: int) -> None:
    """Gives this process one of the visible GPUs, in turn."""
    import torch

    count = torch.cuda.device_count()
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(gpu) for gpu in range(count)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]


def end_with_parent() -> None:
    """Ends this process soon after its parent, even one that was killed: nobody else would."""
    # An interrupt at the terminal reaches all processes; it is for the parent to end this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
