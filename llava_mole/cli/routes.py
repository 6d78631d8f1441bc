"""examples:
  # which expert gets how many tokens of each set, layer by layer, as a picture and as numbers
  llava-mole routes --model-path playground/runs/my_run \\
      --data general=general.jsonl document=document.jsonl --output routing.png
"""

import argparse
import json
from pathlib import Path

from llava_mole.cli.arguments import device_of, open_sets

HELP = "count and draw which expert each data set's tokens are routed to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``llava-mole routes``."""
    parser.add_argument("--model-path", required=True, help="run directory of a MoLE finetuning")
    parser.add_argument("--model-base", help="base model in place of the one the run names")
    parser.add_argument("--data", required=True, nargs="+", metavar="NAME=FILE", help="LLaVA JSON")
    parser.add_argument("--image-root", help="folder of the images (default: beside each FILE)")
    parser.add_argument("--limit", type=int, default=100, help="records of each set")
    parser.add_argument("--layers", type=int, nargs="+", help="layers to draw (default: all)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument("--output", default="routing.png", help="picture; numbers go beside it")


def run(arguments: argparse.Namespace) -> int:
    """Routes each set's first questions and writes picture and JSON."""
    for option in ("limit", "batch_size"):
        if getattr(arguments, option) < 1:
            raise ValueError(f"--{option.replace('_', '-')} must be >= 1")
    sets = open_sets(arguments.data, "--data", arguments.image_root)

    from llava_mole.analysis.routing import draw, expert_load, table
    from llava_mole.eval.questions import image_of, prompt_of
    from llava_mole.generate import encode_prompts
    from llava_mole.model import load_run

    model, processor = load_run(
        arguments.model_path, arguments.model_base, device=device_of(arguments.device)
    )
    loads = {}
    for name, questions in sets.items():
        records = list(questions.records(stop=arguments.limit))

        def batches(records=records, root=questions.image_root):
            for start in range(0, len(records), arguments.batch_size):
                batch = records[start : start + arguments.batch_size]
                prompts = [(image_of(record, root), prompt_of(record)) for record in batch]
                inputs = encode_prompts(processor, prompts).to(model.device)
                # Routing is wanted, not words: one position's logits are the fewest.
                yield {**inputs, "logits_to_keep": 1}

        loads[name] = expert_load(model, batches())
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    draw(loads, output, arguments.layers)
    numbers = output.with_suffix(".json")
    numbers.write_text(json.dumps({name: load.to_dict() for name, load in loads.items()}) + "\n")
    print(table(loads))
    print(f"picture: {output}\nnumbers, layer by layer: {numbers}")
    return 0
