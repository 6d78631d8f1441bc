"""Entry point of ``llava-mole``: finds the subcommand and turns user errors into one message."""

import argparse
import importlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Sequence

COMMANDS = ("train", "chat", "eval", "data", "routes", "conflicts", "bench", "reproduce")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``llava-mole COMMAND ...``.

    Returns:
        The exit status: 0 done, 1 the command's own negative answer (such as bad records found),
        2 an error in what the user gave, 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        prog="llava-mole",
        description="LLaVA-1.5 training with a sparse mixture of LoRA experts (MoLE).",
        epilog="llava-mole COMMAND --help has examples. Set LLAVA_MOLE_TRACEBACK=1 to see where "
        "an error came from.",
    )
    parser.add_argument(
        "--version", action="version", version=importlib.metadata.version("llava_mole")
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {}
    for name in COMMANDS:
        module = importlib.import_module(f"llava_mole.cli.{name}")
        modules[name] = module
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
    arguments = parser.parse_args(argv)
    # About names that transformers and peft deprecate in each other: nothing a user can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="(transformers|peft)")
    try:
        return modules[arguments.command].run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if os.environ.get("LLAVA_MOLE_TRACEBACK"):
            raise
        print(f"llava-mole {arguments.command}: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
