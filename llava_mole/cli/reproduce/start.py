"""How ``llava-mole reproduce`` starts runs: here, or as a script for several GPUs."""

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llava_mole.cli.reproduce.report import folder_of
from llava_mole.files import refuse_unwritable, refuse_unwritable_folder
from llava_mole.reproduce.execute import execute
from llava_mole.reproduce.launch import commands, write
from llava_mole.reproduce.lock import lock_file
from llava_mole.reproduce.runs import Run
from llava_mole.reproduce.scales import Scale
from llava_mole.reproduce.status import missing, refuse_missing
from llava_mole.reproduce.store import Store


def here(arguments: argparse.Namespace, runs: Sequence[Run], scale: Scale, store: Store) -> int:
    """Does what is left of ``runs``; the exit status.

    Raises:
        ValueError: something that they need is not there, or their outcome could not be written.
    """
    left = [one for one in runs if store.get(one) is None]
    refuse_missing(left, scale)
    store.refuse_another_base(left)
    files = [*(lock_file(one.folder) for one in left[:1]), store.path]
    for file in [*files, folder_of(arguments, scale) / "report.md"]:
        refuse_unwritable(file, _named(arguments, scale))
    # Seed by seed, so that what is there after a stop is a table, not a row.
    seeds = list(dict.fromkeys(one.seed for one in runs))
    done = execute(
        sorted(runs, key=lambda one: seeds.index(one.seed)),
        scale,
        store,
        processes=arguments.processes or scale.processes,
        keep_runs=arguments.keep_runs or scale.keep_runs,
    )
    print(
        f"{len(done.done)} of {len(runs)} runs have results, {len(done.failed)} failed, "
        f"{len(done.elsewhere)} are at work elsewhere"
    )
    return 1 if done.failed or done.elsewhere else 0


def by_script(arguments: argparse.Namespace, left: Sequence[Run], scale: Scale, how: str) -> int:
    """Writes the script that does ``left``, and submits it if that was asked; the exit status.

    Raises:
        ValueError: the script can't be written, or there is no SLURM here to submit it to.
    """
    if not left:
        print("every run has its results; --report writes the report")
        return 0
    output = Path(arguments.output) if arguments.output else None
    refuse_unwritable_folder((output or Path(scale.output)) / "launch", _named(arguments, scale))
    if lacking := missing(left):
        print(
            "note: not on this machine; where the script runs it must be:\n"
            + "\n".join(lacking)
            + (f"\nIt is made by: {scale.prepare}" if scale.prepare else ""),
            file=sys.stderr,
        )
    script = write(left, scale, how, Path(arguments.experiments), output)
    start = ["sbatch" if how == "slurm" else "bash", str(script)]
    print(f"{len(left)} run(s) written to {script}")
    if arguments.submit and shutil.which(start[0]) is None:
        raise ValueError(
            "--submit: there is no sbatch here; on a machine of the cluster that has it, from the "
            f"repository: {shlex.join(start)}"
        )
    if arguments.submit:
        return subprocess.run(start, check=False).returncode
    prefix = "HOSTFILE=hosts.txt " if how == "hostfile" else ""
    print(f"start them from the repository:  {prefix}{shlex.join(start)}")
    return 0


def print_commands(
    runs: Sequence[Run], scale: Scale, experiments: Path, output: Path | None
) -> None:
    """What a script would do, a line a command."""
    print(
        "\nwhat --launch writes down (measure is 'llava-mole reproduce --measure', score is "
        "'llava-mole eval --model-path' on all GPUs):"
    )
    for one in runs:
        for line in commands(one, scale, None, experiments, output):
            print(f"  {line}")


def _named(arguments: argparse.Namespace, scale: Scale) -> str:
    """What says where runs and results go."""
    return "--output" if arguments.output else f"output of scale {scale.name}"
