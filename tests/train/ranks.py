"""Starts ``llava-mole train`` as users do: as a process of its own, on several ranks if wanted."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """CPU only, one thread a rank, and ninja on the path, which DeepSpeed builds its op with."""
    scripts = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }


def write_config(folder: Path, values: dict) -> Path:
    """``values`` as a YAML file named after their output folder."""
    path = folder / f"{Path(values['output_dir']).name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def launch(
    config: Path, ranks: int, *arguments: str, torchrun: bool = True
) -> subprocess.CompletedProcess:
    """Runs to the end on ``ranks`` ranks; the caller looks at the exit status.

    ``torchrun=False`` starts the one rank as a plain command.
    """
    command = [sys.executable, "-m"]
    if torchrun:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
    command += ["llava_mole.cli.main", "train", "--config", str(config), *arguments]
    return subprocess.run(
        command,
        env=environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
