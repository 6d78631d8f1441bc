"""Memory that stays with the process, for steadier times on the CPU."""

import os
import sys

# glibc gives large tensors back to the kernel and asks for them again, in some arms more often than
# in others; clearing pages would then be what is timed.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30)}
# Each thread would keep freed memory of its own.
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}


def hold_memory(benchmark: str, **variables: str) -> None:
    """Starts this very command again with `MALLOC` where it runs without; then does not return.

    glibc reads them when a process starts. Nothing happens where another program called `main`, or
    where somebody set them already.

    Args:
        benchmark: name of the command behind ``bench``.
        **variables: more of them.
    """
    wanted = MALLOC | variables
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    if not missing or sys.platform != "linux" or sys.argv[1:3] != ["bench", benchmark]:
        return
    words = " ".join(f"{name}={value}" for name, value in missing.items())
    print(f"bench: starting again with {words}, for steadier times", file=sys.stderr, flush=True)
    os.execve(sys.executable, sys.orig_argv, os.environ | missing)


def malloc_settings() -> dict[str, str | None]:
    """What is set of them, for reports."""
    return {name: os.environ.get(name) for name in MALLOC | ONE_ARENA}
