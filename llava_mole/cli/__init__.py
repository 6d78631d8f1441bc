"""The ``llava-mole`` command: one file a subcommand, each with NAME, HELP, add_arguments, run."""
