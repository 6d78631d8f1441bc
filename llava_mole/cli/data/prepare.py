"""examples:
# the three small sets of the quickstart, made from real data that installs as packages
llava-mole data prepare quickstart --output playground/data/quickstart
"""

import argparse

HELP = "make a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``prepare``."""
    parser.add_argument("name", choices=["quickstart"], help="which data set")
    parser.add_argument("--output", required=True, help="folder to make it in")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn by chance")


def run(arguments: argparse.Namespace) -> int:
    """Makes the data set."""
    from llava_mole.data.builders.quickstart import build_all

    build_all(arguments.output, arguments.seed)
    print(f"made in {arguments.output}")
    return 0
