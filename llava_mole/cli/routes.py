"""examples:
  # which expert gets how many tokens of each set, layer by layer; how far that tells sets apart
  llava-mole routes --model-path playground/runs/my_run \\
      --data general=general.jsonl document=document.jsonl --output routing.png

  # four layers as a vector picture, of what data prepare made of the test files (the paper's own
  # Figure 3, of its runs and benchmarks: llava-mole reproduce --figure 3)
  llava-mole routes --model-path RUN --data chartqa=prepared/chartqa pathvqa=prepared/pathvqa \\
      --layers 0 2 10 28 --limit 1000 --output figure3.pdf

  # the expert of every patch of an image and of every word of question and answer
  llava-mole routes --model-path RUN --image-file picture.jpg --question "What is this?"

Beside the picture that --output names: routing.kinds.png (image, question and answer tokens),
routing.sets.png (data sets compared, with the level of chance), routing.training.png (the run's own
log), routing.image.png (--image-file), the numbers as .json, and routing.html with everything.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from llava_mole.cli.arguments import device_of, open_image, open_sets
from llava_mole.files import refuse_unwritable

HELP = "count, compare and draw which expert each token is routed to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``llava-mole routes``."""
    parser.add_argument("--model-path", required=True, help="run directory of a MoLE finetuning")
    parser.add_argument("--model-base", help="base model in place of the one the run names")
    parser.add_argument(
        "--data", nargs="+", metavar="NAME=DATA", help="LLaVA JSON or prepared folders"
    )
    parser.add_argument("--image-root", help="folder of the images (default: beside each FILE)")
    parser.add_argument(
        "--limit", type=int, default=100, help="first records of each set (default: %(default)s)"
    )
    parser.add_argument("--image-file", help="one image, routed patch by patch")
    parser.add_argument("--question", help="what is asked about it (default: Describe this image.)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, help="longest answer (default: %(default)s)"
    )
    parser.add_argument("--layers", type=int, nargs="+", help="layers to draw (default: all)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--output", default="routing.png", help="picture; all else goes beside it")


def run(arguments: argparse.Namespace) -> int:
    """Routes what was given and writes pictures, numbers and the page."""
    for option in ("limit", "batch_size", "max_new_tokens"):
        if getattr(arguments, option) < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be >= 1")
    if not arguments.data and not arguments.image_file:
        raise ValueError("give --data NAME=FILE, --image-file IMG, or both")
    if arguments.question is not None and not arguments.image_file:
        raise ValueError("--question goes with --image-file")
    if arguments.question is not None and not arguments.question.strip():
        raise ValueError("--question is empty")
    from llava_mole.analysis.routing.drawing import check_suffix

    output = Path(arguments.output)
    check_suffix(output)
    sets = open_sets(arguments.data or [], "--data", arguments.image_root)
    image = open_image(arguments.image_file, "--image-file") if arguments.image_file else None
    refuse_unwritable(output, "--output")

    from llava_mole.analysis import routing
    from llava_mole.model import load_run

    model, processor = load_run(
        arguments.model_path, arguments.model_base, device=device_of(arguments.device)
    )
    try:
        layers = routing.layers_of(model)
    except ValueError as error:
        raise ValueError(f"--model-path {arguments.model_path}: {error}") from None
    places = routing.places_of(layers, arguments.layers)
    report = routing.Report(
        output=output,
        facts=[
            ("run", Path(arguments.model_path).name),
            ("experts", str(routing.experts_of(model))),
            ("layers with experts", str(len(layers))),
        ],
        notes=[],
        num_experts=routing.experts_of(model),
        places=places,
        counts=_counts(arguments, sets, model, processor),
        training=routing.read_training(arguments.model_path),
    )
    if image is not None:
        report.trace = routing.trace(
            model,
            processor,
            image,
            arguments.question or "Describe this image.",
            os.path.basename(arguments.image_file),
            arguments.max_new_tokens,
        )
    _explain(report, model)
    files = report.write()
    if report.counts:
        print(routing.table(report.counts))
    if report.comparison is not None:
        print(routing.summary(report.comparison))
    if report.trace is not None:
        print(f"{report.trace.question}\n{report.trace.answer or '(no answer)'}")
    for note in report.notes:
        print(f"note: {note}")
    print("\n".join(f"wrote {file}" for file in files))
    return 0


def _counts(arguments: argparse.Namespace, sets: dict, model: Any, processor: Any) -> dict:
    from llava_mole.analysis import routing

    encoder = routing.encoder_of(processor)
    return {
        name: routing.count(
            model,
            routing.batches(
                list(records.records(stop=arguments.limit)),
                records.image_root,
                encoder,
                processor,
                arguments.batch_size,
            ),
        )
        for name, records in sets.items()
    }


def _explain(report: Any, model: Any) -> None:
    """What a reader has to know before the pictures."""
    from llava_mole.analysis.routing.choices import is_dense

    for name, counts in report.counts.items():
        tokens = sum(counts.num_tokens.values())
        report.facts.append((name, f"{counts.tokens.shape[1]:,} sequences, {tokens:,} tokens"))
    if is_dense(model):
        report.notes.append(
            "Dense routing: every expert computes every token; counted is the one that weighs most."
        )
    if len(report.counts) == 1:
        report.notes.append("One data set: there is nothing to compare it with.")
    if report.trace is not None and report.trace.grid is None:
        count = len(range(*report.trace.image_positions.indices(report.trace.expert.shape[1])))
        report.notes.append(
            f"The image's {count} tokens form no square, so it isn't known where on the image they "
            "lie: only the words are shown."
        )
