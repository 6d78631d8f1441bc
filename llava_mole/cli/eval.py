"""examples:
  # accuracy on one's own test set (LLaVA JSON or JSONL; the last answer is the reference)
  llava-mole eval --model-path playground/runs/my_run --data mine=test.jsonl --image-root images

  # beside two baselines that see no image: the most frequent training answer, and shuffled images
  llava-mole eval --model-path RUN --data mine=test.jsonl --training mine=train.jsonl \\
      --shuffle-images --output RUN/eval

Answers are kept one by one in OUTPUT/NAME.jsonl, so that a run that was stopped goes on; scores are
in OUTPUT/results.json.
"""

import argparse
import json
import os
from pathlib import Path

from llava_mole.cli.arguments import device_of, open_sets

HELP = "score a model's answers on question sets, beside baselines that do not see the image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``llava-mole eval``."""
    parser.add_argument("--model-path", required=True, help="run directory, or a LLaVA checkpoint")
    parser.add_argument("--model-base", help="base model in place of the one the run names")
    parser.add_argument("--conv-mode", help="template of the turns in place of the run's own")
    parser.add_argument(
        "--data", required=True, nargs="+", metavar="NAME=FILE", help="question sets"
    )
    parser.add_argument("--image-root", help="folder of the images (default: beside each FILE)")
    parser.add_argument(
        "--training",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="what was trained on, for the majority-answer baseline",
    )
    parser.add_argument(
        "--shuffle-images",
        action="store_true",
        help="also ask every question beside another record's image",
    )
    parser.add_argument("--output", help="folder of the results (default: MODEL_PATH/eval)")
    parser.add_argument("--limit", type=int, help="only the first N questions of each set")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffling")


def run(arguments: argparse.Namespace) -> int:
    """Asks, scores, prints a table and writes ``results.json``."""
    for option in ("batch_size", "max_new_tokens", "limit"):
        value = getattr(arguments, option)
        if value is not None and value < 1:
            raise ValueError(f"--{option.replace('_', '-')} is {value}; it must be >= 1")
    sets = open_sets(arguments.data, "--data", arguments.image_root)
    training = open_sets(arguments.training, "--training")
    if missing := sorted(set(training) - set(sets)):
        raise ValueError(f"--training {missing[0]}: no --data set has that name")

    from llava_mole import generate
    from llava_mole.eval import runner
    from llava_mole.eval.questions import image_of
    from llava_mole.model import load_run

    records = {name: list(opened.records(stop=arguments.limit)) for name, opened in sets.items()}
    shuffled = {}
    if arguments.shuffle_images:  # before the model is loaded: it may not be possible
        shuffled = {
            name: runner.with_shuffled_images(asked, arguments.seed)
            for name, asked in records.items()
        }
    if not arguments.output and not Path(arguments.model_path).is_dir():
        raise ValueError(
            f"--model-path {arguments.model_path}: no such folder; if it is a hub "
            "name, say with --output where the answers go"
        )
    output = Path(arguments.output or Path(arguments.model_path) / "eval")
    model, processor = load_run(
        arguments.model_path,
        arguments.model_base,
        device=device_of(arguments.device),
        conv_mode=arguments.conv_mode,
    )
    _hold_to_settings(output, arguments)

    def answer_batch(prompts):
        return generate.answers(model, processor, prompts, max_new_tokens=arguments.max_new_tokens)

    def ask(label, records, root):
        answers = runner.ask(
            records,
            answer_batch,
            lambda record: image_of(record, root),
            output / f"{label}.jsonl",
            arguments.batch_size,
            progress=label,
        )
        return runner.score(answers)

    results = {}
    for name, questions in sets.items():
        root = questions.image_root
        scores = results[name] = {"accuracy": ask(name, records[name], root)}
        if name in shuffled:
            scores["shuffled_images"] = ask(f"{name}.shuffled", shuffled[name], root)
        if name in training:
            known = list(training[name].records())
            scores["majority_answer"] = runner.majority(records[name], known)
    _write(output / "results.json", results)
    print(runner.table(results))
    print(f"answers and results.json: {output}")
    return 0


def _hold_to_settings(output: Path, arguments: argparse.Namespace) -> None:
    """Answers that are kept must have been given by this model in this way.

    Raises:
        ValueError: ``output`` holds answers given by other weights or under other settings.
    """
    from llava_mole.files import file_sha256

    settings = {
        "model_path": arguments.model_path,
        "model_base": arguments.model_base,
        "image_root": arguments.image_root,
        "conv_mode": arguments.conv_mode,
        "max_new_tokens": arguments.max_new_tokens,
        "seed": arguments.seed,
    }
    for name in ("adapter_model.safetensors", "projector.safetensors"):
        weights = Path(arguments.model_path) / name
        if weights.is_file():
            settings[name] = file_sha256(weights)
    file = output / "settings.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        keys = sorted(before.keys() | settings.keys())
        if changed := [key for key in keys if before.get(key) != settings.get(key)]:
            raise ValueError(
                f"{output} holds answers given with another {', '.join(changed)}; delete the "
                "folder or give another --output"
            )
    output.mkdir(parents=True, exist_ok=True)
    _replace(file, settings)


def _replace(file: Path, values: dict) -> None:
    """Writes JSON in one step, so that no reader sees a part of it."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, file)


def _write(file: Path, results) -> None:
    values = {
        name: {
            kind: {
                "accuracy": score.accuracy,
                "interval": list(score.interval),
                "hits": score.hits,
                "total": score.total,
            }
            for kind, score in scores.items()
        }
        for name, scores in results.items()
    }
    _replace(file, values)
