"""Commands that are a module each: those of ``llava-mole``, and of ``data`` and ``bench`` in it."""

import argparse
import importlib
from collections.abc import Sequence
from types import ModuleType


def add_commands(
    parser: argparse.ArgumentParser, package: str, names: Sequence[str], dest: str
) -> dict[str, ModuleType]:
    """Adds every command with its flags.

    Args:
        parser: of what they belong to.
        package: where their modules are, each with HELP, examples as its docstring,
            ``add_arguments(parser)`` and ``run(arguments)``, which returns the exit status.
        names: of commands and modules.
        dest: attribute of the parsed arguments that will hold the chosen one.

    Returns:
        The modules by name.
    """
    subparsers = parser.add_subparsers(dest=dest, required=True, metavar="COMMAND")
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    for name, module in modules.items():
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
    return modules
