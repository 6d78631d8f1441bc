"""What every benchmark says about itself: machine, versions, load, command; and its JSON file."""

import argparse
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any


def numbers(text: str) -> tuple[int, ...]:
    """The type of a flag that takes whole numbers between commas."""
    return tuple(int(part) for part in text.split(","))


def distinct_numbers(text: str) -> tuple[int, ...]:
    """As `numbers`, for a flag that takes each of them once."""
    found = numbers(text)
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text}: a number stands there twice")
    return found


def refuse_unwritable(file: str) -> None:
    """Raises ValueError where ``--json FILE`` could not be written after minutes of measuring."""
    path = Path(file)
    folder = next((parent for parent in path.absolute().parents if parent.exists()), path)
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--json {file}: cannot be written; name a file in a folder of yours")


def machine_of(device: str) -> dict[str, Any]:
    """What a time depends on, without naming the host."""
    import peft
    import torch
    import transformers

    on_cpu = device == "cpu"
    return {
        "machine": platform.machine() if on_cpu else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }


def report(figures, file: str | None, load: float, **values: Any) -> int:
    """Prints how it was measured, writes all of it to ``file``, and gives the exit status."""
    command = shlex.join(["llava-mole", *sys.argv[1:]])
    print(f"load of the machine before it began: {load:.1f}")
    print(command)
    if file:
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        values |= {"command": command, "cores": os.cpu_count(), "load_before": load}
        values["figures"] = [figure.to_dict() for figure in figures]
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
    return 1 if any(figure.met is False for figure in figures) else 0
