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

HELP = "make and check data sets"
# Each a module of this package with HELP, add_arguments(parser) and run(arguments).
COMMANDS = ("download", "prepare", "check", "show", "stats")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds every data command with its flags."""
    subparsers = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
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
    """Runs the chosen data command and returns its exit status."""
    return _module(arguments.data_command).run(arguments)


def _module(name: str):
    return importlib.import_module(f"llava_mole.cli.data.{name}")
