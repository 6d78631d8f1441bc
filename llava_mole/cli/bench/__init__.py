"""examples:
# the layer, its saved bytes and its decode step against PEFT's LoRA and other mixtures
llava-mole bench layer

# a whole training step against LLaVA's way of training, on the quickstart's samples
llava-mole bench step

llava-mole bench COMMAND --help has more of each.
"""

import argparse
import importlib

from llava_mole.cli.bench.report import refuse_unwritable

HELP = "measure speed and memory against their targets"
# Each a module of this package with HELP, add_arguments(parser) and run(arguments), which measures
# and prints, and returns 1 if a target was missed.
COMMANDS = ("data", "decode", "layer", "step")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds every benchmark with its flags."""
    subparsers = parser.add_subparsers(dest="bench_command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = _module(name)
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the chosen benchmark; 1 if a target was missed."""
    if arguments.json:
        refuse_unwritable(arguments.json)
    return _module(arguments.bench_command).run(arguments)


def _module(name: str):
    return importlib.import_module(f"llava_mole.cli.bench.{name}")
