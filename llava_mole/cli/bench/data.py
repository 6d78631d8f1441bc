"""examples:
# at the paper's size: about 5 GB of disk below --work-dir
llava-mole bench data

# a first look, with the tokenizer of a run
llava-mole bench data --records 100000 --config configs/quickstart_finetune.yaml
"""

import argparse
import os
import tempfile
from pathlib import Path

from llava_mole.cli.bench.report import machine_of, report

HELP = "prepare, check, open and images, on made-up records"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``data``."""
    parser.add_argument("--records", type=int, default=2_000_000, help="(default: 2,000,000)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--only",
        default="prepare,check,open,images",
        metavar="STEP,STEP",
        help="(default: prepare,check,open,images)",
    )
    parser.add_argument("--config", help="count lengths with this run's tokenizer and template")
    parser.add_argument("--work-dir", help="folder to work in; what is made there is removed again")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints; 1 if a target was missed."""
    import dataclasses

    from llava_mole.bench.data import run
    from llava_mole.bench.figures import table

    model = None
    if arguments.config:
        from llava_mole.config import load
        from llava_mole.train.config import RunConfig

        model = dataclasses.asdict(load(RunConfig, arguments.config).model)
    if arguments.work_dir and not Path(arguments.work_dir).is_dir():
        raise ValueError(f"--work-dir {arguments.work_dir}: no such folder; make it first")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="llava-mole-bench-", dir=arguments.work_dir) as folder:
        figures = run(
            folder, arguments.records, arguments.processes, arguments.only.split(","), model
        )
    machine = f"{os.cpu_count()} cores ({len(os.sched_getaffinity(0))} usable)"
    print(table(figures))
    print(f"\n{arguments.records:,} records, {arguments.processes} processes on {machine}")
    counts = {"records": arguments.records, "processes": arguments.processes}
    return report(figures, arguments.json, load, **machine_of("cpu"), **counts)
