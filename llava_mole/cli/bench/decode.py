"""examples:
# decoding with MoLE against plain LoRA of the same rank, one CPU thread
llava-mole bench decode --json decode.json

exit status: 0 all targets met; 1 one was missed; 2 an error
"""

import argparse
import os

from llava_mole.cli.arguments import device_of
from llava_mole.cli.bench.report import distinct_numbers, machine_of, numbers, report

HELP = "decoding with MoLE against a plain LoRA of the same rank on the same linears"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``decode``."""
    parser.add_argument("--experts", type=distinct_numbers, default=(3, 8), help="(default: 3,8)")
    parser.add_argument("--batch-sizes", type=numbers, default=(1, 8), help="(default: 1,8)")
    parser.add_argument("--new-tokens", type=int, default=32, help="an answer's (default: 32)")
    parser.add_argument("--rounds", type=int, default=15, help="(default: 15)")
    parser.add_argument("--rank", type=int, default=16, help="(default: 16)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--size",
        type=numbers,
        default=(576, 1536, 6),
        metavar="WIDTH,FFN,LAYERS",
        help="of the decoder, with random weights (default: 576,1536,6)",
    )
    parser.add_argument("--model-path", help="a run, whose base model is taken instead")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints; 1 if a target was missed."""
    from dataclasses import asdict

    import torch

    from llava_mole.bench.decode import Settings, run
    from llava_mole.bench.figures import table

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
    machine = machine_of(settings.device)
    print(f"\n{machine['machine']}, {machine['threads']} thread(s), torch {torch.__version__}")
    return report(figures, arguments.json, load, settings=asdict(settings), **machine)
