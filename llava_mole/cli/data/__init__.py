"""examples:
# a published data set, made ready for training: one checked Arrow table
llava-mole data prepare sharegpt4v-pretrain --source playground/data/sharegpt4v \\
    --output playground/data/prepared/sharegpt4v-pretrain

# every record of a file or a prepared folder: structure, images, counts
llava-mole data check train.jsonl --image-root images --decode --report bad.jsonl

llava-mole data COMMAND --help has more of each.
"""

import argparse
import importlib

from llava_mole.cli.commands import add_commands

HELP = "make and check data sets"
# Each a module of this package with HELP, add_arguments(parser) and run(arguments).
COMMANDS = ("download", "prepare", "check", "show", "stats")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds every data command with its flags."""
    add_commands(parser, __name__, COMMANDS, "data_command")


def run(arguments: argparse.Namespace) -> int:
    """Runs the chosen data command and returns its exit status."""
    return importlib.import_module(f"{__name__}.{arguments.data_command}").run(arguments)
