"""examples:
# saved bytes, training and decode time on the CPU; about a quarter of an hour
llava-mole bench layer --json layer.json --plot layer.png

# bytes alone: the same on every machine
llava-mole bench layer --only saved

# a first look at times
llava-mole bench layer --only time --shapes 576x1536 --tokens 256 --experts 3 --rounds 5

# a GPU: 7B widths, 4,096 tokens, bfloat16, peak memory too
llava-mole bench layer --device cuda --only time,decode

PEFT, the bar, is its LoRA without dropout in the base's dtype; "PEFT default" has float32 adapters
and dropout 0.05. mask loop, MixLoRA-style and dense are mixtures as they are usually written; MoLE
is what get_peft_model(model, MoleConfig(...)) makes. Every arm is compared with a float64 oracle
first, and one that differs is not timed.

exit status: 0 all targets met; 1 one was missed; 2 an error
"""

import argparse
import os

from llava_mole.cli.arguments import device_of
from llava_mole.cli.bench.report import distinct_numbers, machine_of, numbers, report
from llava_mole.cli.bench.steady import MALLOC, hold_memory

HELP = "one FFN with MoLE against plain LoRA and other mixtures: bytes, training, decoding"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``layer``."""
    parser.add_argument(
        "--only", metavar="PART,PART", help="what is measured (default: saved,time,decode)"
    )
    parser.add_argument(
        "--shapes",
        metavar="DxF,DxF",
        help="width and FFN width, for times (default: 576x1536,1024x2816; on a GPU 4096x11008)",
    )
    parser.add_argument(
        "--tokens",
        type=numbers,
        metavar="T,T",
        help="of a forward and backward pass, such as 256,2048 (default: 2048; on a GPU 4096)",
    )
    parser.add_argument(
        "--experts",
        type=distinct_numbers,
        metavar="K,K",
        help="numbers of experts (default: 3,8,16)",
    )
    parser.add_argument("--rank", type=int, help="of LoRA and of every expert (default: 32)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="(default: float32; on a GPU bfloat16)"
    )
    parser.add_argument("--rounds", type=int, help="of which medians are taken (default: 11)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument(
        "--saved-shape", metavar="DxF", help="widths for saved bytes (default: 4096x11008)"
    )
    parser.add_argument(
        "--saved-tokens", type=int, metavar="T", help="tokens for saved bytes (default: 128)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    parser.add_argument("--plot", metavar="FILE", help="draw them to this .png, .svg or .pdf")


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints; 1 if a target was missed."""
    device = device_of(arguments.device)
    if device == "cpu" and arguments.only != "saved":
        hold_memory("layer")  # before the long imports, which would be made twice
    from dataclasses import asdict
    from pathlib import Path

    import torch

    from llava_mole.analysis import plotting

    if arguments.plot:
        plotting.check_suffix(arguments.plot, "--plot")
    settings = _settings(arguments, device)

    from llava_mole.bench.figures import table
    from llava_mole.bench.layer import run

    load = os.getloadavg()[0]
    figures = run(settings)
    print(table(figures))
    machine = machine_of(settings.device)
    print(f"\n{machine['machine']}, {machine['threads']} thread(s), torch {torch.__version__}")
    if arguments.plot:
        from llava_mole.bench.layer.draw import panels

        with plotting.pyplot({"font.size": 8}) as plt:
            plotting.save(panels(plt, figures), Path(arguments.plot), dpi=150)
        print(f"picture: {arguments.plot}")
    malloc = {name: os.environ.get(name) for name in MALLOC}
    return report(
        figures, arguments.json, load, settings=asdict(settings), malloc=malloc, **machine
    )


def _settings(arguments: argparse.Namespace, device: str):
    from llava_mole.bench.layer import Settings

    return Settings.of(
        device,
        only=None if arguments.only is None else tuple(arguments.only.split(",")),
        dtype=arguments.dtype,
        shapes=_shapes("--shapes", arguments.shapes),
        tokens=arguments.tokens,
        experts=arguments.experts,
        r=arguments.rank,
        rounds=arguments.rounds,
        saved_shape=(_shapes("--saved-shape", arguments.saved_shape) or [None])[0],
        saved_tokens=arguments.saved_tokens,
    )


def _shapes(flag: str, text: str | None) -> list[tuple[int, int]] | None:
    """``DxF,DxF`` as pairs."""
    if text is None:
        return None
    try:
        pairs = [tuple(int(size) for size in shape.split("x")) for shape in text.split(",")]
    except ValueError:
        pairs = []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{flag} {text}: write it as WIDTHxFFN, such as 576x1536")
    return pairs
