"""The ``llava-mole`` command: one file a subcommand, each with HELP, add_arguments, run."""
