"""examples:
# the gradients of the config's domains, before anything is trained, on plain LoRA
llava-mole conflicts --config configs/finetune_mole.yaml --batches 16 --output conflicts.png

# where LoRA has learned something: a trained run, or after a few steps
llava-mole conflicts --model-path playground/runs/my_run
llava-mole conflicts --config configs/finetune_lora.yaml --steps-before 100 train.warmup_steps=10

# data set by data set; key=value overrides the config as in train
llava-mole conflicts --config configs/finetune_mole.yaml --by dataset adapter.r=64

# after training: what each domain's run scores on the others, and what the mixture loses
llava-mole conflicts --runs general=RUN document=RUN biomedicine=RUN --mix RUN
"""

import argparse
import logging
from pathlib import Path

from llava_mole.cli.arguments import device_of, named_paths
from llava_mole.files import refuse_unwritable, replace_json

HELP = "measure how the domains of a mixture pull against each other"
_DEFAULT = {"config": "conflicts.png", "runs": "transfer.png"}
_MEASURING = ("only", "batches", "batch_size", "seed", "by", "adapter", "steps_before")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``conflicts``."""
    parser.add_argument("--config", metavar="RUN.yaml", help="run config, a finetuning's")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in llava-mole train")
    parser.add_argument(
        "--model-path",
        metavar="RUN",
        help="measure at this run's trained weights, with its own config's data unless --config "
        "names another",
    )
    parser.add_argument(
        "--steps-before", type=int, metavar="N", help="train so many steps of the config first"
    )
    parser.add_argument(
        "--adapter",
        choices=["lora", "config"],
        help="lora: measure on plain LoRA of the config's rank (default); config: on its adapter",
    )
    parser.add_argument(
        "--by", choices=["domain", "dataset"], help="what is compared (default: domain)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="compare these alone")
    parser.add_argument("--batches", type=int, help="batches of each domain (default: 16)")
    parser.add_argument("--batch-size", type=int, help="samples of a batch (default: 8)")
    parser.add_argument("--seed", type=int, help="of the draw (default: the config's)")
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument(
        "--runs",
        nargs="+",
        metavar="NAME=RUN",
        help="the transfer matrix of runs trained on one domain each and scored by llava-mole eval",
    )
    parser.add_argument("--mix", metavar="RUN", help="with --runs: the run on their mixture")
    parser.add_argument(
        "--output", help="picture; numbers go beside it (conflicts.png, or transfer.png)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints a table, writes picture and JSON."""
    _check(arguments)
    from llava_mole.analysis.plotting import check_suffix

    kind = "runs" if arguments.runs else "config"
    output = Path(arguments.output or _DEFAULT[kind])
    check_suffix(output)
    numbers = output.with_suffix(".json")
    for file in (output, numbers):
        refuse_unwritable(file, "--output")
    text, values = _transfer(arguments, output) if arguments.runs else _measure(arguments, output)
    replace_json(numbers, values)
    print(text)
    print(f"\npicture: {output}\nnumbers: {numbers}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises ValueError where options don't go together."""
    if arguments.runs:
        given = [name for name in ("config", "model_path", *_MEASURING) if _given(arguments, name)]
        if given or arguments.overrides:
            other = f"--{given[0].replace('_', '-')}" if given else arguments.overrides[0]
            raise ValueError(f"--runs reads results alone and takes no {other}; leave one out")
        return
    if arguments.model_path and arguments.adapter:
        raise ValueError("--model-path has its own adapter and takes no --adapter; leave one out")
    if arguments.mix:
        raise ValueError("--mix goes with --runs NAME=RUN …, the runs that it is compared with")
    if not arguments.config and not arguments.model_path:
        raise ValueError("give --config RUN.yaml, --model-path RUN or --runs NAME=RUN …")
    if arguments.overrides and not arguments.config:
        raise ValueError(f"{arguments.overrides[0]!r} overrides a config; give it with --config")


def _given(arguments: argparse.Namespace, name: str) -> bool:
    return getattr(arguments, name) is not None


def _measure(arguments: argparse.Namespace, output: Path) -> tuple[str, dict]:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("llava_mole.analysis").setLevel(logging.INFO)
    from llava_mole.analysis.conflicts.measure import Settings, measure
    from llava_mole.analysis.conflicts.picture import draw_conflicts
    from llava_mole.analysis.conflicts.table import conflict_text
    from llava_mole.analysis.conflicts.weights import run_config_of
    from llava_mole.config import load
    from llava_mole.train.config import RunConfig

    chosen = {name: getattr(arguments, name) for name in _MEASURING if _given(arguments, name)}
    if arguments.only:
        chosen["only"] = tuple(arguments.only)
    settings = Settings(
        **chosen, model_path=arguments.model_path, device=device_of(arguments.device)
    )
    if arguments.config:
        config = load(RunConfig, arguments.config, arguments.overrides)
    else:
        config = run_config_of(arguments.model_path)
    found = measure(config, settings, progress=True)
    draw_conflicts(found, output)
    origin = {"config": arguments.config, "overrides": arguments.overrides}
    return conflict_text(found), {**origin, **found.to_dict()}


def _transfer(arguments: argparse.Namespace, output: Path) -> tuple[str, dict]:
    from llava_mole.analysis.conflicts.transfer import read_transfer
    from llava_mole.analysis.conflicts.transfer_picture import draw_transfer
    from llava_mole.analysis.conflicts.transfer_table import transfer_text

    found = read_transfer(named_paths(arguments.runs, "--runs"), arguments.mix)
    draw_transfer(found, output)
    return transfer_text(found), found.to_dict()
