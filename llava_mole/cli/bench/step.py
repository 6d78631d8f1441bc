"""examples:
# the quickstart's model and samples (made by 'bash scripts/quickstart.sh'), one CPU thread; about
# a quarter of an hour
llava-mole bench step --json step.json --plot step.png

# made-up samples and a small model of random weights: needs no data
llava-mole bench step --synthetic --size 576,1536,6

# the quickstart's images as pixels through its vision tower, not as its cached features
llava-mole bench step --pixels

# LLaVA-1.5-7B at its real widths, random weights, on a GPU, with the share of the GPU's peak
llava-mole bench step --model 7b --experts 2,3,8 --device cuda

# how even layouts make the ranks, and what the paper's training would take: arithmetic, no timing
llava-mole bench step --layouts
llava-mole bench step --layouts --config configs/finetune_mole.yaml   # the lengths of its data

"LLaVA's way" is what LLaVA-1.5's finetune_lora.sh does: padded rows, logits at every position,
gradient checkpointing, group_by_modality_length, LoRA on every linear with dropout 0.05, here with
the run's rank, in HF's Trainer. Each lever is taken away alone, then all of them; the product's own
trainer follows with plain LoRA and with MoLE. Losses and gradients are held against one another
before anything is timed.

exit status: 0 all targets met; 1 one was missed; 2 an error
"""

import argparse
import os
from pathlib import Path
from typing import Any

from llava_mole.cli.arguments import device_of
from llava_mole.cli.bench.report import machine_of, numbers, report
from llava_mole.cli.bench.steady import ONE_ARENA, hold_memory, malloc_settings

HELP = "a whole training step against LLaVA's way of making one"
QUICKSTART = "configs/quickstart_finetune.yaml"
PAPER = "configs/finetune_mole.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``step``."""
    parser.add_argument(
        "--config",
        metavar="RUN.yaml",
        help=f"the run whose steps are made (default: {QUICKSTART}; with --layouts and --model, "
        f"{PAPER})",
    )
    parser.add_argument(
        "--synthetic", action="store_true", help="made-up samples, a small model of random weights"
    )
    parser.add_argument(
        "--size",
        type=numbers,
        default=(576, 1536, 6),
        metavar="WIDTH,FFN,LAYERS",
        help="of the small model's decoder (default: 576,1536,6)",
    )
    parser.add_argument(
        "--model",
        choices=("7b",),
        help="made-up samples, and the model of --config with random weights",
    )
    parser.add_argument(
        "--pixels", action="store_true", help="images as pixels, whatever features are cached"
    )
    parser.add_argument("--experts", type=numbers, default=(2, 3, 8, 16), help="(default 2,3,8,16)")
    parser.add_argument("--rank", type=int, help="of the adapters (default: the run's)")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps a round (default: 4)")
    parser.add_argument("--rounds", type=int, default=9, help="(default: 9)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    parser.add_argument(
        "--peak-tflops", type=float, help="of the GPU, for MFU (default: known for A100 and H200)"
    )
    parser.add_argument(
        "--layouts", action="store_true", help="balance of ranks and projected GPU-hours instead"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the arms as bars")


def run(arguments: argparse.Namespace) -> int:
    """Measures, or works layouts out, and prints; 1 if a target was missed."""
    _check(arguments)
    return _layouts(arguments) if arguments.layouts else _steps(arguments)


def _check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for flags that don't go together, before anything long."""
    from llava_mole.analysis.plotting import check_suffix

    if arguments.synthetic and (arguments.config or arguments.model):
        raise ValueError("--synthetic makes a model of its own; leave --config and --model out")
    if arguments.pixels and (arguments.synthetic or arguments.model):
        raise ValueError("--pixels: made-up samples have pixels anyway; leave it out")
    if arguments.layouts and (arguments.plot or arguments.model or arguments.pixels):
        raise ValueError("--layouts times nothing; leave --plot, --model and --pixels out")
    if arguments.plot:
        check_suffix(arguments.plot, "--plot")
    if arguments.steps < 1 or (arguments.rank is not None and arguments.rank < 1):
        raise ValueError("--steps and --rank take numbers >= 1")
    if min(arguments.size) < 1 or len(arguments.size) != 3:
        raise ValueError("--size takes WIDTH,FFN,LAYERS, numbers >= 1")


def _steps(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    import torch

    device = device_of(arguments.device)
    if device == "cpu":
        hold_memory("step", **ONE_ARENA)  # before the long imports, which would be made twice
    from llava_mole.bench.figures import table
    from llava_mole.bench.step.measure import Settings, measure

    settings = Settings(arguments.experts, arguments.rounds, _peak(arguments.peak_tflops, device))
    job = _job(arguments, device)
    load = os.getloadavg()[0]
    measured = measure(job, settings)
    print(table(measured.figures))
    machine = machine_of(device)
    print(f"\n{job.source}; {len(job.samples)} samples, {job.global_batch} a step")
    print(f"{machine['machine']}, {machine['threads']} thread(s), torch {torch.__version__}")
    if arguments.plot:
        _plot(measured.speed, Path(arguments.plot))
    values = {"settings": asdict(settings), "samples": job.source, **measured.to_dict()}
    values |= {"lengths": job.lengths.tolist(), "malloc": malloc_settings()}
    return report(measured.figures, arguments.json, load, **values, **machine)


def _job(arguments: argparse.Namespace, device: str) -> Any:
    if arguments.synthetic:
        from llava_mole.bench.step.synthetic import small_job

        return small_job(arguments.size, arguments.steps, device, arguments.rank)
    if arguments.model:
        from llava_mole.bench.step.synthetic import random_job
        from llava_mole.config import load
        from llava_mole.train.config import RunConfig

        config = load(RunConfig, arguments.config or PAPER)
        return random_job(config, arguments.steps, device, arguments.rank)
    from llava_mole.bench.step.samples import job_of

    config = arguments.config or QUICKSTART
    return job_of(config, arguments.steps, device, arguments.pixels, arguments.rank)


def _peak(tflops: float | None, device: str) -> float | None:
    """FLOP/s of the GPU, as given or by its name; None on the CPU or where it is not known."""
    import torch

    from llava_mole.reproduce.cost import PEAK

    if tflops is not None or device == "cpu":
        return None if tflops is None else tflops * 1e12
    name = torch.cuda.get_device_name(device)
    return next((peak for kind, peak in PEAK.items() if kind in name), None)


def _plot(speed: dict, file: Path) -> None:
    from llava_mole.analysis.plotting import pyplot, save
    from llava_mole.bench.step.draw import bars

    with pyplot({"font.size": 9}) as plt:
        figure, axes = plt.subplots(figsize=(8, 0.36 * len(speed) + 1), layout="constrained")
        bars(axes, speed)
        save(figure, file, dpi=150)
    print(f"picture: {file}")


def _layouts(arguments: argparse.Namespace) -> int:
    from llava_mole.bench import layouts
    from llava_mole.bench.figures import table
    from llava_mole.config import load
    from llava_mole.reproduce.cost import PAPER_HOURS, PAPER_SAMPLES, PEAK
    from llava_mole.train.config import RunConfig

    load_before = os.getloadavg()[0]
    config = load(RunConfig, arguments.config or PAPER)
    lengths = layouts.made_up_lengths()
    if arguments.config:
        lengths = layouts.lengths_of(config)
    found = layouts.figures(
        lengths, layouts.count(config), PAPER_SAMPLES, PAPER_HOURS, PEAK["A100"]
    )
    print(table(found))
    print(
        f"\nARITHMETIC, NOT A MEASUREMENT: {lengths.source}; {PAPER_SAMPLES:,} samples, global "
        f"batch {layouts.GLOBAL_BATCH}; MFU is assumed; without checkpointing, input and start-up"
    )
    return report(found, arguments.json, load_before, lengths=lengths.source, arithmetic=True)
