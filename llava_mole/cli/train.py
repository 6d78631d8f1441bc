"""examples:
# what it would do: parameters, memory per GPU, steps, data; needs no weights, data or network
llava-mole train --config configs/finetune_mole.yaml --dry-run --ranks 64

# one process, without DeepSpeed (which always wants a launcher)
llava-mole train --config configs/finetune_mole.yaml train.deepspeed=null train.learning_rate=1e-4

# all GPUs of this machine, DeepSpeed ZeRO-2; several: bash scripts/finetune_mole.sh --help
torchrun --nproc-per-node 8 -m llava_mole.cli.main train --config configs/finetune_mole.yaml

The same command, started again, goes on from the newest valid checkpoint in output_dir.
"""

import argparse
import logging
import os

HELP = "train one stage: the projector, or projector and adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``train``."""
    parser.add_argument("--config", required=True, help="run config (YAML), see configs/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="override a value, e.g. train.learning_rate=1e-4 data.domains.document.weight=2",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument(
        "--ranks", type=int, help="ranks to plan for with --dry-run (default: this launch's)"
    )
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto: go on from the newest valid checkpoint; never: insist on a fresh start; "
        "PATH: from this checkpoint (default: auto)",
    )
    parser.add_argument("--deepspeed", metavar="JSON", help="same as train.deepspeed=JSON")
    parser.add_argument(
        "--on-bad-record",
        choices=["fail", "skip"],
        help="same as data.on_bad_record=...: stop before training, or leave bad records out",
    )


def run(arguments: argparse.Namespace) -> int:
    """Trains, or prints the plan; 0 when done."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    rank = int(os.environ.get("RANK", "0"))
    logging.getLogger("llava_mole").setLevel(logging.INFO if rank == 0 else logging.WARNING)
    from llava_mole.config import load
    from llava_mole.train.config import RunConfig, world_size

    overrides = list(arguments.overrides)
    if arguments.deepspeed:
        overrides.append(f"train.deepspeed={arguments.deepspeed}")
    if arguments.on_bad_record:
        overrides.append(f"data.on_bad_record={arguments.on_bad_record}")
    config = load(RunConfig, arguments.config, overrides)
    if arguments.dry_run:
        logging.getLogger("llava_mole").setLevel(logging.WARNING)
        from llava_mole.train.dryrun import plan

        print(plan(config, world_size() if arguments.ranks is None else arguments.ranks))
        return 0
    from llava_mole.eval.validation import open_validation
    from llava_mole.train.run import train

    evaluate = open_validation(config.data.eval, config.output_dir)
    folder = train(config, resume=arguments.resume, evaluate=evaluate)
    if rank == 0:
        print(f"run directory: {folder}")
    return 0
