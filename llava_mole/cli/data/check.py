"""examples:
# every record of a prepared folder, or of one LLaVA JSON or JSONL file
llava-mole data check playground/data/prepared/ureader
llava-mole data check train.jsonl --image-root images --decode --report bad.jsonl

# every record that a run would train on, with its length in tokens; the run starts at once after
llava-mole data check --config configs/finetune_mole.yaml

# one file, with its lengths as the model of a run counts them
llava-mole data check train.jsonl --config configs/finetune_mole.yaml

# in a script: up to 1 % bad records are borne, as by a run with on_bad_record: skip
llava-mole data check train.jsonl --on-bad-record skip --max-bad-fraction 0.01 --json check.json

What is found is kept for runs with the same data, model and settings, which then don't look again.
This command always looks.

exit status:
  0  no bad record, or with --on-bad-record skip no data set with more than --max-bad-fraction
  1  bad records
  2  something that keeps it from looking: a wrong option, no such file, a broken config
"""

import argparse
import os

from llava_mole.cli.arguments import (
    add_data,
    check_data,
    encoder_of,
    file_config,
    run_config,
)

HELP = "look at every record and list the bad ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``check``."""
    add_data(
        parser, "run config: its model's token lengths, and without FILE all its data sets", False
    )
    parser.add_argument(
        "--no-lengths", action="store_true", help="with --config: don't tokenise (much faster)"
    )
    parser.add_argument(
        "--decode", action="store_true", help="read every image whole (default: the config's)"
    )
    parser.add_argument("--json", help="write the report to this file, for scripts")
    parser.add_argument("--report", help="write the bad records to this JSONL file")
    parser.add_argument(
        "--on-bad-record",
        choices=("fail", "skip"),
        default="fail",
        help="whether bad records up to --max-bad-fraction are borne (default: fail)",
    )
    parser.add_argument(
        "--max-bad-fraction",
        type=float,
        default=0.02,
        help="with skip: largest bearable share of a data set's records (default: 0.02)",
    )
    parser.add_argument(
        "--num-workers", type=int, default=os.cpu_count(), help="processes (default: one a core)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Looks at every record; 1 if there are more bad ones than are borne."""
    _refuse_contradictions(arguments)
    from llava_mole.data.audit.audit import audit
    from llava_mole.data.audit.report import text, write_json

    sets, encoder, cache_dir, check_images = _open(arguments)
    for records in sets:
        if not len(records) and not records.problems:
            raise ValueError(f"data set {records.name!r}: no records in it; correct its path")
    result = audit(
        sets,
        encoder=encoder,
        check_images=check_images,
        num_workers=arguments.num_workers,
        progress=True,
        cache_dir=cache_dir,
    )
    print(text(result))
    if arguments.report:
        result.write(arguments.report)
    if arguments.json:
        settings = {
            "check_images": check_images,
            "lengths": encoder is not None,
            "max_length": encoder and encoder.max_length,
            "overlong": encoder and encoder.overlong,
        }
        write_json(result, arguments.json, settings)
    return _verdict(result, arguments)


def _refuse_contradictions(arguments: argparse.Namespace) -> None:
    check_data(arguments, "data check")
    if arguments.no_lengths and not arguments.config:
        raise ValueError("data check: --no-lengths goes with --config")
    if not 0 <= arguments.max_bad_fraction <= 1:
        raise ValueError("data check: --max-bad-fraction must be in [0, 1]")


def _verdict(result, arguments: argparse.Namespace) -> int:
    """Says the number of bad records, and whether they are borne, as exit status."""
    bad = len(result.problems)
    if not bad:
        print("\nno bad records")
        return 0
    listed = f"listed in {arguments.report}" if arguments.report else "--report FILE lists them all"
    print(f"\n{bad:,} bad record(s), {listed}")
    if arguments.on_bad_record == "fail":
        return 1
    worst = max(result.sets, key=lambda found: found.bad_fraction)
    borne = worst.bad_fraction <= arguments.max_bad_fraction
    print(
        f"at most {worst.bad_fraction:.2%} of a data set ({worst.name}): "
        f"{'within' if borne else 'more than'} --max-bad-fraction {arguments.max_bad_fraction:.2%}"
    )
    return 0 if borne else 1


def _open(arguments: argparse.Namespace):
    """The open data sets, an encoder or none, the cache folder, and how images are checked."""
    if not arguments.config:
        from llava_mole.data.prepared.recordset import open_dataset

        opened = open_dataset(file_config(arguments), cache_dir=arguments.cache_dir)
        return [opened], None, arguments.cache_dir, "decode" if arguments.decode else "exists"
    from llava_mole.data.build import open_sets

    config = run_config(arguments)
    training, heldout = open_sets(config.data.drawn())
    encoder = None if arguments.no_lengths else encoder_of(config)
    check_images = "decode" if arguments.decode else config.data.check_images
    return [*training, *heldout], encoder, config.data.cache_dir, check_images
