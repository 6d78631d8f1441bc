"""The processes that a launcher (accelerate, torchrun, deepspeed) started, as `Ranks`."""

import datetime
import os

from accelerate import PartialState

from llava_mole.eval.ask import ALONE, Ranks

# Ranks wait for the slowest, and for rank 0 while it writes reports.
_PATIENCE = datetime.timedelta(hours=24)


def launched_ranks(cpu: bool = False) -> tuple[Ranks, str | None]:
    """Who shares the work, and this rank's device; None for a process that no launcher started.

    Args:
        cpu: whether to stay on the CPU although there are GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, None
    state = PartialState(cpu=cpu, timeout=_PATIENCE)
    return current_ranks(), str(state.device)


def current_ranks() -> Ranks:
    """The ranks of a process group that is there already, as in training."""
    state = PartialState()
    return Ranks(state.process_index, state.num_processes, state.wait_for_everyone)
