"""Entry point of ``llava-mole``: finds the subcommand and turns user errors into one message."""

import argparse
import importlib.metadata
import os
import select
import sys
import warnings
from collections.abc import Sequence

from llava_mole.cli.commands import add_commands

COMMANDS = ("train", "chat", "eval", "data", "routes", "conflicts", "bench", "reproduce")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``llava-mole COMMAND ...``.

    Returns:
        The exit status: 0 done, 1 the command's own negative answer (such as bad records found),
        2 an error in what the user gave, 130 interrupted, 141 its output's reader has gone.
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
    modules = add_commands(parser, "llava_mole.cli", COMMANDS, "command")
    arguments = parser.parse_args(argv)
    # About names that transformers and peft deprecate in each other: nothing a user can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="(transformers|peft)")
    try:
        status = modules[arguments.command].run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return 141
        if os.environ.get("LLAVA_MOLE_TRACEBACK"):
            raise
        print(f"llava-mole {arguments.command}: error: {error}", file=sys.stderr)
        return 2


def _reader_has_gone() -> bool:
    """Whether what the output goes to, such as ``head``, has read enough; other pipes break too."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    gone = bool(poll.poll(0))  # errors are told unasked
    if gone:
        # Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


if __name__ == "__main__":
    sys.exit(main())
