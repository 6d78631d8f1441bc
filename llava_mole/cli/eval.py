"""examples:
  # the paper's four benchmarks, as Table 2 has them; DIR holds them as published
  llava-mole eval --model-path playground/runs/finetune_mole \\
      --benchmarks ehub chartqa docvqa pathvqa --data playground/data

  # on eight GPUs; started again after a stop it goes on where it was
  torchrun --nproc-per-node 8 -m llava_mole.cli.main eval --model-path RUN \\
      --benchmarks pathvqa --data playground/data --batch-size 32

  # eHub as the paper's published inference code asks it
  llava-mole eval --model-path RUN --benchmarks ehub --data DIR --prompt-style authors

  # a question set of one's own (LLaVA JSON, or LLaVA's question files), and what is guessed blindly
  llava-mole eval --model-path RUN --benchmarks mine=test.jsonl --image-root images \\
      --metric anls --training mine=train.jsonl --shuffle-images

  # answers that were given elsewhere: no model is loaded
  llava-mole eval --benchmarks chartqa --data DIR --predictions chartqa=answers.jsonl --output OUT

OUTPUT gets report.md, report.html with one page a benchmark, results.json, and NAME/answers.jsonl.
Where each benchmark is fetched and how its folder looks: docs/evaluation.md.
"""

import argparse
from pathlib import Path

from llava_mole.cli.arguments import device_of, named_paths, open_sets

HELP = "score a model on the paper's benchmarks or on your own questions, with a report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``llava-mole eval``."""
    what = parser.add_argument_group("what is asked")
    what.add_argument(
        "--benchmarks",
        nargs="+",
        required=True,
        metavar="NAME|NAME=PATH",
        help="ehub, chartqa, docvqa, pathvqa; general, document, biomedicine (the quickstart's); "
        "any other NAME=FILE is a set of your own",
    )
    what.add_argument("--data", metavar="DIR", help="folder that holds the benchmarks")
    what.add_argument("--limit", type=int, help="only the first N questions of each part")
    what.add_argument("--metric", help="of your own sets (default: exact_match)")
    what.add_argument(
        "--image-root", metavar="DIR", help="images of your own sets (default: FILE's folder)"
    )
    what.add_argument(
        "--on-bad-image",
        choices=("fail", "count"),
        default="fail",
        help="images that are missing before anything is asked: stop, or count their questions as "
        "0 and name them (default: fail). One that turns out damaged is always counted and named",
    )
    who = parser.add_argument_group("who answers")
    who.add_argument("--model-path", help="run directory, or a LLaVA checkpoint")
    who.add_argument("--model-base", help="base model in place of the one the run names")
    who.add_argument("--load-4bit", action="store_true", help="language model in nf4")
    who.add_argument("--load-8bit", action="store_true", help="language model in int8")
    who.add_argument("--device", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    who.add_argument(
        "--predictions",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="score these answers instead (JSONL of id and prediction); FILE alone will do for one "
        "benchmark",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--conv-mode", help="template of the turns in place of the run's own")
    how.add_argument(
        "--prompt-style",
        choices=("llava", "authors"),
        default="llava",
        help="llava: the question as the benchmark has it; authors: eHub with the prefix of the "
        "paper's code, repetition penalty 10 and 256 tokens (default: llava)",
    )
    how.add_argument(
        "--suffix",
        default="",
        metavar="TEXT",
        help="put behind each question, e.g. LLaVA-1.5's 'Answer the question using a single word "
        "or phrase.'",
    )
    how.add_argument("--max-new-tokens", type=int, help="longest answer (default: the benchmark's)")
    how.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    blind = parser.add_argument_group("what is scored without seeing the image")
    blind.add_argument("--shuffle-images", action="store_true", help="ask beside other images too")
    blind.add_argument(
        "--training",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="what was trained on: score each question's most frequent answer in it",
    )
    blind.add_argument("--seed", type=int, default=0, help="of the shuffling")
    parser.add_argument("--output", help="folder of the results (default: MODEL_PATH/eval)")


def run(arguments: argparse.Namespace) -> int:
    """Asks, scores, and reports."""
    _check(arguments)
    given = _predictions(arguments)
    training = open_sets(arguments.training, "--training")

    from llava_mole.eval.baselines import with_shuffled_images
    from llava_mole.eval.evaluate import Blind, evaluate
    from llava_mole.eval.report.summary import paper_row
    from llava_mole.eval.respondent import from_files
    from llava_mole.files import refuse_unwritable_folder

    # All that can be wrong without a model is found before one is loaded.
    tasks = [_open(arguments, name, path) for name, path in _benchmarks(arguments).items()]
    names = [task.benchmark.name for task in tasks]
    for option, extra in (("--training", training), ("--predictions", given)):
        if unknown := sorted(set(extra) - set(names)):
            raise ValueError(f"{option} {unknown[0]}: --benchmarks does not name it")
    shuffled = {
        task.label: with_shuffled_images(task.questions, arguments.seed)
        for task in (tasks if arguments.shuffle_images else [])
    }
    output = _output(arguments)
    rank = 0
    if given:
        who = from_files(tasks, given)
    else:
        refuse_unwritable_folder(output, "--output")
        who, rank = _from_model(arguments, tasks, output)
    shown = evaluate(
        tasks,
        who.answers_to,
        output,
        model=who.model,
        how=who.how,
        blind=Blind(training, shuffled),
        row=paper_row(arguments.model_path),
        rank=rank,
    )
    if rank == 0:
        print(shown)
        print(f"report: {output / 'report.html'}\nall of it: {output}")
    return 0


def _from_model(arguments: argparse.Namespace, tasks, output: Path):
    """The `Respondent` that the flags name, and this process's rank."""
    from llava_mole.eval.ranks import launched_ranks
    from llava_mole.eval.respondent import from_model
    from llava_mole.eval.task import refuse_missing_images

    if arguments.on_bad_image == "fail":
        for task in tasks:
            refuse_missing_images(task)
    ranks, device = launched_ranks(cpu=arguments.device == "cpu")
    who = from_model(
        arguments.model_path,
        tasks,
        output,
        device=device or device_of(arguments.device),
        batch_size=arguments.batch_size,
        prompt_style=arguments.prompt_style,
        image_root=arguments.image_root,
        ranks=ranks,
        model_base=arguments.model_base,
        conv_mode=arguments.conv_mode,
        load_4bit=arguments.load_4bit,
        load_8bit=arguments.load_8bit,
    )
    return who, ranks.rank


def _check(arguments: argparse.Namespace) -> None:
    for option in ("batch_size", "max_new_tokens", "limit"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise ValueError(f"--{option.replace('_', '-')} is {value}; it must be >= 1")
    if bool(arguments.model_path) == bool(arguments.predictions):
        raise ValueError("give either --model-path or --predictions")
    if arguments.predictions and (arguments.shuffle_images or not arguments.output):
        raise ValueError(
            "--predictions needs --output, and can't go with --shuffle-images: no model is asked"
        )


def _benchmarks(arguments: argparse.Namespace) -> dict[str, Path]:
    """Name to the folder or file that it is read from."""
    from llava_mole.eval.benchmarks import BENCHMARKS

    if arguments.data and "=" in arguments.data and not Path(arguments.data).exists():
        raise ValueError(
            f"--data {arguments.data!r}: --data is the folder that holds the benchmarks; a set of "
            f"your own is --benchmarks {arguments.data}"
        )
    found = named_paths([item for item in arguments.benchmarks if "=" in item], "--benchmarks")
    for name in (item for item in arguments.benchmarks if "=" not in item):
        if name not in BENCHMARKS:
            raise ValueError(
                f"--benchmarks {name!r}: there are {', '.join(BENCHMARKS)}; a set of your own is "
                f"NAME=FILE"
            )
        if arguments.data is None:
            raise ValueError(f"--benchmarks {name}: give the folder that holds it with --data")
        if name in found:
            raise ValueError(f"--benchmarks: {name!r} is named twice")
        found[name] = arguments.data
    if "report" in found:
        raise ValueError("--benchmarks report: that name is the report's own; take another")
    for name, path in found.items():
        if not Path(path).exists():
            raise ValueError(f"--benchmarks {name}: {path} is not there; correct the path")
    own = [name for name in found if name not in BENCHMARKS]
    for option in ("metric", "image_root"):
        if getattr(arguments, option) and not own:
            raise ValueError(
                f"--{option.replace('_', '-')} is for sets of your own (NAME=FILE); "
                f"{', '.join(found)} has its own"
            )
    order = [item.partition("=")[0] for item in arguments.benchmarks]
    return {name: Path(found[name]) for name in order}


def _open(arguments: argparse.Namespace, name: str, path: Path):
    from llava_mole.eval.task import open_task

    return open_task(
        name,
        path,
        metric=arguments.metric,
        image_root=arguments.image_root,
        limit=arguments.limit,
        style=arguments.prompt_style,
        suffix=arguments.suffix,
        max_new_tokens=arguments.max_new_tokens,
    )


def _predictions(arguments: argparse.Namespace) -> dict[str, Path]:
    items = arguments.predictions
    if len(items) == 1 and "=" not in items[0] and len(arguments.benchmarks) == 1:
        return {arguments.benchmarks[0].partition("=")[0]: Path(items[0])}
    found = named_paths(items, "--predictions")
    names = [item.partition("=")[0] for item in arguments.benchmarks]
    if found and (missing := [name for name in names if name not in found]):
        raise ValueError(f"--predictions: none for {missing[0]}; write {missing[0]}=FILE")
    return {name: Path(file) for name, file in found.items()}


def _output(arguments: argparse.Namespace) -> Path:
    if not arguments.output and not Path(arguments.model_path).is_dir():
        raise ValueError(
            f"--model-path {arguments.model_path}: no such folder; if it is a hub name, say with "
            "--output where the answers go"
        )
    return Path(arguments.output or Path(arguments.model_path) / "eval")
