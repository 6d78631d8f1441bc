"""examples:
# ShareGPT4V's captions: the folder with the JSON, or the one above with the images' folders
llava-mole data prepare sharegpt4v-pretrain --source playground/data/sharegpt4v \\
    --output playground/data/prepared/sharegpt4v-pretrain

# two groups of M3IT without one of their data sets; its images go into the output
llava-mole data prepare m3it --source playground/data/m3it --output playground/data/prepared/m3it \\
    --groups vqa,reasoning --exclude clevr

# UReader and PathVQA (raw folder or the hub's parquet) with token lengths for a run's model,
# so that the run need not count them
llava-mole data prepare ureader --source playground/data/ureader --split train+val \\
    --exclude TextCaps --output playground/data/prepared/ureader --config configs/finetune_mole.yaml
llava-mole data prepare pathvqa --source playground/data/pathvqa \\
    --output playground/data/prepared/pathvqa --config configs/finetune_mole.yaml

# any LLaVA JSON or JSONL
llava-mole data prepare llava --source train.json --image-root images --output prepared/mine

# the three small sets of the quickstart, made from real data that installs as packages
llava-mole data prepare quickstart --output playground/data/quickstart

A preparation that was stopped goes on where it was when the command is given again (until then it
is in OUTPUT.partial, which may be deleted); a finished one is left as it is. OUTPUT then stands in
a run config as  path: OUTPUT

exit status: 0 done, even with rows that are no records; 1 nothing is a record; 2 an error
"""

import argparse
import os
from pathlib import Path

from llava_mole.cli.arguments import encoder_of
from llava_mole.data.sources import SOURCES, open_source
from llava_mole.files import refuse_unwritable_folder

HELP = "make a published data set ready for training"
QUICKSTART = "quickstart"
# Options that only some sources know, as `SourceKind.options` names them.
OPTIONS = {
    "split": "split to read (default: train)",
    "groups": "M3IT: these groups only, as vqa,reasoning",
    "datasets": "these data sets of the collection only, as docvqa,clevr",
    "exclude": "all data sets but these",
}
LISTS = ("groups", "datasets", "exclude")
SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``prepare``."""
    listed = "; ".join(f"{name}: {kind.summary}" for name, kind in SOURCES.items())
    parser.add_argument(
        "name",
        metavar="NAME",
        choices=[*SOURCES, QUICKSTART],
        help=f"which data set. {listed}; {QUICKSTART}: its three small sets",
    )
    parser.add_argument("--source", metavar="DIR_OR_FILE", help="where it lies, as published")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--image-root", metavar="DIR", help="folder that image paths start from (default: found)"
    )
    for name, text in OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)
    parser.add_argument("--seed", type=int, help="of everything drawn by chance (default: 0)")
    parser.add_argument(
        "--config",
        metavar="RUN.yaml",
        help="count each record's tokens as the model of this run config reads it",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace OUTPUT, all that is in it, if it was prepared from something else",
    )
    parser.add_argument(
        "--processes", type=int, help="worker processes (default: one a core, 8 at most)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepares the data set; 1 if nothing in it is a record."""
    if arguments.name == QUICKSTART:
        return _quickstart(arguments)
    if not arguments.source:
        raise ValueError(f"data prepare {arguments.name}: --source must say where the files are")
    if arguments.processes is not None and arguments.processes < 1:
        raise ValueError(f"--processes is {arguments.processes}; it must be at least 1")
    from llava_mole.data.prepared.prepare import prepare

    options = {name: getattr(arguments, name) for name in OPTIONS}
    for name in LISTS:
        if options[name] is not None:
            options[name] = tuple(part.strip() for part in options[name].split(",") if part.strip())
    source = open_source(arguments.name, arguments.source, seed=arguments.seed, **options)
    # It is made beside its folder and then moved there.
    refuse_unwritable_folder(Path(arguments.output).parent, "--output")
    prepared = prepare(
        source,
        arguments.output,
        image_root=arguments.image_root,
        encoder=_encoder(arguments.config),
        processes=arguments.processes or min(8, _cores()),
        progress=True,
        overwrite=arguments.overwrite,
    )
    _summarise(prepared)
    return 0 if prepared.records else 1


def _quickstart(arguments: argparse.Namespace) -> int:
    from llava_mole.data.builders.quickstart import build_all

    for name in ("source", "image_root", "config", "processes", *OPTIONS):
        if getattr(arguments, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"quickstart has no option {option}; those it knows: --seed")
    refuse_unwritable_folder(Path(arguments.output), "--output")
    build_all(arguments.output, arguments.seed or 0)
    print(f"made in {arguments.output}")
    return 0


def _encoder(path: str | None):
    if path is None:
        return None
    from llava_mole.config import load
    from llava_mole.train.config import RunConfig

    return encoder_of(load(RunConfig, path))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _summarise(prepared) -> None:
    """Prints what is in the folder, and the problems by kind with how to look at them."""
    from llava_mole.data.audit.problems import kind_of

    print(
        f"{prepared.records:,} records of {prepared.name} in {prepared.folder}, "
        f"image paths start from {prepared.image_root}"
    )
    if not prepared.problems:
        return
    total = prepared.records + prepared.problems
    print(f"{prepared.problems:,} of {total:,} rows are no records and are left out:")
    counts: dict = {}
    examples: dict = {}
    for problem in prepared.problems_listed():
        kind = kind_of(problem.reason)
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= SHOWN:
            examples.setdefault(kind, []).append(str(problem)[:300])
    for kind, count in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"  {count:>10,}  {kind.name}: {kind.remedy}")
        for example in examples[kind]:
            print(f"              {example}")
    print(
        f"all of them, with file, line and id: {prepared.folder}/problems.jsonl\n"
        "a run stops because of them under data.on_bad_record: fail, and goes on without them "
        "under skip (up to data.max_bad_fraction)"
    )
