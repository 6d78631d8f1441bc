"""examples:
# every record of one file: structure, images, counts; exit status 1 if one is bad
llava-mole data check train.jsonl --image-root images --decode --report bad.jsonl

# every record that a run would train on, with its length in tokens
llava-mole data check --config configs/finetune_mole.yaml
"""

import argparse

HELP = "look at every record and list the bad ones"
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``check``."""
    parser.add_argument("file", nargs="?", help="LLaVA JSON or JSONL")
    parser.add_argument("--image-root", help="folder of the images (default: beside FILE)")
    parser.add_argument("--config", help="check all data sets of this run config instead")
    parser.add_argument(
        "--no-lengths", action="store_true", help="with --config: don't tokenise (much faster)"
    )
    parser.add_argument("--decode", action="store_true", help="read every image whole")
    parser.add_argument("--report", help="write the bad records to this JSONL file")
    parser.add_argument("--cache-dir", help="where conversions are kept (~/.cache/llava_mole)")
    parser.add_argument("--num-workers", type=int, default=0, help="threads")


def run(arguments: argparse.Namespace) -> int:
    """Looks at every record; 1 if there are bad ones."""
    if bool(arguments.file) == bool(arguments.config):
        raise ValueError("data check: give either a FILE or --config CONFIG")
    if arguments.config and arguments.image_root:
        raise ValueError("data check: --image-root goes with a FILE; the config has its own")
    from llava_mole.data.audit import audit

    encoder = None
    if arguments.config:
        sets, encoder = _sets_of_config(arguments)
    else:
        from llava_mole.data.arrow import open_dataset
        from llava_mole.data.config import DatasetConfig

        config = DatasetConfig(
            name=arguments.file, path=arguments.file, image_root=arguments.image_root
        )
        sets = [open_dataset(config, cache_dir=arguments.cache_dir)]
    for records in sets:
        if not len(records) and not records.problems:
            raise ValueError(f"data set {records.name!r}: no records in it; correct its path")
    result = audit(
        sets,
        encode=encoder,
        check_images="decode" if arguments.decode else "exists",
        num_workers=arguments.num_workers,
        progress=True,
    )
    print(result.table())
    for problem in result.problems[:SHOWN]:
        print(f"bad: {problem}")
    if arguments.report:
        result.write(arguments.report)
    if not result.problems:
        print("no bad records")
        return 0
    hidden = len(result.problems) - SHOWN
    if hidden > 0:
        listed = f"listed in {arguments.report}" if arguments.report else "listed by --report FILE"
        print(f"and {hidden:,} more, {listed}")
    print(f"{len(result.problems):,} bad record(s)")
    return 1


def _sets_of_config(arguments: argparse.Namespace):
    """The open data sets of a run config, and an encoder unless lengths are not wanted."""
    from llava_mole.config import load
    from llava_mole.data.arrow import open_dataset
    from llava_mole.data.encode import Encoder, count_image_tokens
    from llava_mole.train.config import RunConfig

    config = load(RunConfig, arguments.config)
    cache_dir = arguments.cache_dir or config.data.cache_dir
    sets = [
        open_dataset(dataset, name, domain.weight, cache_dir)
        for name, domain in config.data.domains.items()
        for dataset in domain.datasets
    ]
    sets += [open_dataset(dataset, cache_dir=cache_dir) for dataset in config.data.eval.datasets]
    if arguments.no_lengths:
        return sets, None
    from llava_mole.model.processor import build_processor
    from llava_mole.model.templates import template_for

    processor = build_processor(config.model)
    tokenizer = processor.tokenizer
    encoder = Encoder(
        tokenizer,
        template_for(config.model.conv_mode, tokenizer),
        count_image_tokens(processor),
        config.model.model_max_length,
        config.data.overlong,
    )
    return sets, encoder
