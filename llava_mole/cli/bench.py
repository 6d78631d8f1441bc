"""examples:
# the data path at the paper's size: about 5 GB of disk below --work-dir
llava-mole bench data

# a first look, with the tokenizer of a run
llava-mole bench data --records 100000 --config configs/quickstart_finetune.yaml
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

HELP = "measure speed and memory against their targets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``data`` with its flags."""
    commands = parser.add_subparsers(dest="bench_command", required=True, metavar="COMMAND")
    data = commands.add_parser(
        "data",
        help="prepare, check, open and images, on made-up records",
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data.add_argument("--records", type=int, default=2_000_000, help="(default: 2,000,000)")
    data.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    data.add_argument(
        "--only",
        default="prepare,check,open,images",
        metavar="STEP,STEP",
        help="(default: prepare,check,open,images)",
    )
    data.add_argument("--config", help="count lengths with this run's tokenizer and template")
    data.add_argument("--work-dir", help="folder to work in; what is made there is removed again")
    data.add_argument("--json", metavar="FILE", help="write all figures to this file")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints; 1 if a target was missed."""
    import dataclasses

    from llava_mole.bench.data import run, table

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
    command = shlex.join(["llava-mole", *sys.argv[1:]])
    print(table(figures))
    print(f"\n{arguments.records:,} records, {arguments.processes} processes on {machine}")
    print(f"load of the machine before it began: {load:.1f}")
    print(command)
    if arguments.json:
        path = Path(arguments.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        values = {
            "command": command,
            "cores": os.cpu_count(),
            "load_before": load,
            "records": arguments.records,
            "processes": arguments.processes,
            "figures": [figure.to_dict() for figure in figures],
        }
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
    return 1 if any(figure.met is False for figure in figures) else 0
