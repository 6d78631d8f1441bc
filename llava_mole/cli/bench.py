"""examples:
# the data path at the paper's size: about 5 GB of disk below --work-dir
llava-mole bench data

# a first look, with the tokenizer of a run
llava-mole bench data --records 100000 --config configs/quickstart_finetune.yaml

# decoding with MoLE against plain LoRA of the same rank, one CPU thread
llava-mole bench decode --json decode.json
"""

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from llava_mole.cli.arguments import device_of

HELP = "measure speed and memory against their targets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``data`` and ``decode`` with their flags."""
    commands = parser.add_subparsers(dest="bench_command", required=True, metavar="COMMAND")
    _add_data(commands)
    _add_decode(commands)


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints; 1 if a target was missed."""
    return {"data": _run_data, "decode": _run_decode}[arguments.bench_command](arguments)


def _add_data(commands) -> None:
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


def _add_decode(commands) -> None:
    decode = commands.add_parser(
        "decode",
        help="decoding with MoLE against a plain LoRA of the same rank on the same linears",
        epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    decode.add_argument("--experts", type=_numbers, default=(3, 8), help="(default: 3,8)")
    decode.add_argument("--batch-sizes", type=_numbers, default=(1, 8), help="(default: 1,8)")
    decode.add_argument("--new-tokens", type=int, default=32, help="an answer's (default: 32)")
    decode.add_argument("--rounds", type=int, default=15, help="(default: 15)")
    decode.add_argument("--rank", type=int, default=16, help="(default: 16)")
    decode.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    decode.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    decode.add_argument(
        "--size",
        type=_numbers,
        default=(576, 1536, 6),
        metavar="WIDTH,FFN,LAYERS",
        help="of the decoder, with random weights (default: 576,1536,6)",
    )
    decode.add_argument("--model-path", help="a run, whose base model is taken instead")
    decode.add_argument("--json", metavar="FILE", help="write all figures to this file")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _run_decode(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    import torch

    from llava_mole.bench.data import table
    from llava_mole.bench.decode import Settings, run

    settings = Settings(
        experts=arguments.experts,
        batch_sizes=arguments.batch_sizes,
        new_tokens=arguments.new_tokens,
        rounds=arguments.rounds,
        r=arguments.rank,
        device=device_of(arguments.device),
        dtype=arguments.dtype,
        size=arguments.size,
        model_path=arguments.model_path,
    )
    load = os.getloadavg()[0]
    figures = run(settings)
    print(table(figures))
    machine = _machine(settings.device)
    print(f"\n{machine['machine']}, {machine['threads']} thread(s), torch {torch.__version__}")
    return _report(figures, arguments.json, load, settings=asdict(settings), **machine)


def _machine(device: str) -> dict[str, Any]:
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


def _run_data(arguments: argparse.Namespace) -> int:
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
    print(table(figures))
    print(f"\n{arguments.records:,} records, {arguments.processes} processes on {machine}")
    counts = {"records": arguments.records, "processes": arguments.processes}
    return _report(figures, arguments.json, load, **counts)


def _report(figures, file: str | None, load: float, **values: Any) -> int:
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
