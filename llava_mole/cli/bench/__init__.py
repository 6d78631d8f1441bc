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
from llava_mole.cli.commands import add_commands

HELP = "measure speed and memory against their targets"
# Each a module of this package with HELP, add_arguments(parser) and run(arguments), which measures
# and prints, and returns 1 if a target was missed.
COMMANDS = ("data", "decode", "layer", "step")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds every benchmark with its flags."""
    add_commands(parser, __name__, COMMANDS, "bench_command")


def run(arguments: argparse.Namespace) -> int:
    """Runs the chosen benchmark; 1 if a target was missed."""
    if arguments.json:
        refuse_unwritable(arguments.json)
    return importlib.import_module(f"{__name__}.{arguments.bench_command}").run(arguments)
