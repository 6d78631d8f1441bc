"""Builds the arms, holds them against one another, times them, and sets figures beside targets."""

import contextlib
import dataclasses
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.utils import logging

from llava_mole.bench.figures import Figure, say
from llava_mole.bench.sharing import share_parameters
from llava_mole.bench.step import equal
from llava_mole.bench.step.arms import ours, peer
from llava_mole.bench.step.operations import operations_of
from llava_mole.bench.step.paused import PausedTraining
from llava_mole.bench.step.samples import Job
from llava_mole.bench.step.ways import LLAVA_NAME, ways
from llava_mole.bench.timing import Times, ratio_figure, ratios, rounds
from llava_mole.data.layout import Efficiency, Layout, efficiency
from llava_mole.train.adapter import attach
from llava_mole.train.batches import layout_of
from llava_mole.train.config import AdapterConfig

LORA = "our plain LoRA"
SPEEDUP, OVER_LORA, MANY_OVER_FEW = 2.0, 1.02, 1.08
_JUDGED_EXPERTS = 3
GIB = 2**30


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        experts: numbers of experts, an arm each.
        rounds: how often every arm goes through the samples, after one round to warm up.
        peak: FLOP/s of the GPU, for MFU; None leaves it out.
    """

    experts: Sequence[int] = (2, 3, 8, 16)
    rounds: int = 9
    peak: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for settings that cannot be measured."""
        if not self.experts or min(self.experts) < 1 or len(set(self.experts)) < len(self.experts):
            raise ValueError(f"--experts {self.experts}: give different numbers >= 1")
        if self.rounds < 3:
            raise ValueError(f"--rounds {self.rounds}: quartiles need at least 3")


@dataclass(frozen=True)
class Measured:
    """What came out.

    Attributes:
        figures: for the table.
        times: seconds of an optimizer step, by arm and round.
        speed: samples/s over LLaVA's way: quartiles by arm, for the picture.
        differences: relative differences of the losses that were compared before.
        memory: peak bytes of a step above what lies there between steps, by arm; CUDA only.
    """

    figures: list[Figure]
    times: Times
    speed: dict[str, tuple[float, float, float]]
    differences: dict[str, float]
    memory: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the figures."""
        values = dataclasses.asdict(self)
        del values["figures"]
        return values


def measure(job: Job, settings: Settings) -> Measured:
    """Runs the whole benchmark.

    Raises:
        RuntimeError: arms differ in what they compute, so that their speed would mean nothing.
    """
    if job.device == "cpu":
        torch.set_num_threads(1)
    with _quiet(), tempfile.TemporaryDirectory(prefix="llava-mole-step-") as folder:
        trainers = _trainers(job, settings, Path(folder))
        differences = _check(job, trainers, Path(folder))
        say(
            f"{len(trainers)} arms agree on {len(job.samples)} samples: losses within "
            f"{max(differences.values()):.1g}"
        )
        times, memory = _time(job, trainers, settings)
    speed = {name: ratios(times, name)[LLAVA_NAME] for name in times}
    figures = _figures(job, times, speed, settings) + _facts(job, times, settings)
    figures += [
        Figure(f"peak memory of a step, {name}", taken / GIB, "GiB", note="above weights and state")
        for name, taken in memory.items()
    ]
    return Measured(figures, times, speed, differences, memory)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers says once for every one of a dozen trainers."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)


def _trainers(job: Job, settings: Settings, folder: Path) -> dict[str, Trainer]:
    made: dict[str, Trainer] = {}
    for number, (name, way) in enumerate(ways().items()):
        made[_short(name)] = peer(job, way, folder / f"peer-{number}")
    made[LORA] = ours(job, _adapter(job, "lora"), folder / "lora")
    for experts in settings.experts:
        made[mole_name(experts)] = ours(job, _adapter(job, "mole", experts), folder / f"k{experts}")
    return made


def mole_name(experts: int) -> str:
    """The arm of a MoLE with so many experts."""
    return f"MoLE K={experts}"


def _short(name: str) -> str:
    return name if name == LLAVA_NAME else f"{LLAVA_NAME}, {name}"


def _adapter(job: Job, kind: str, experts: int = 1) -> AdapterConfig:
    """The run's adapter as plain LoRA or with another number of experts."""
    own = job.config.adapter
    if kind == "mole" and own.type == "mole":
        return dataclasses.replace(own, num_experts=experts, init_from=None)
    return AdapterConfig(
        type=kind,
        r=own.r,
        lora_alpha=own.lora_alpha,
        lora_dropout=own.lora_dropout,
        num_experts=experts,
    )


def _check(job: Job, trainers: Mapping[str, Trainer], folder: Path) -> dict[str, float]:
    dtype = next(job.model.parameters()).dtype
    moles = {name: arm for name, arm in trainers.items() if getattr(arm, "is_mole", False)}
    loras = {name: arm for name, arm in trainers.items() if name not in moles}
    experts = {name: arm.model.peft_config["default"].num_experts for name, arm in moles.items()}

    def reference(name: str):
        adapter = _adapter(job, "mole", experts[name])
        return ours(job, adapter, folder / "reference", padded=True)

    return equal.check_loras(loras, dtype) | equal.check_moles(moles, reference, dtype)


def _time(
    job: Job, trainers: Mapping[str, Trainer], settings: Settings
) -> tuple[Times, dict[str, int]]:
    steps = len(job.samples) // job.global_batch
    memory: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        arms = {name: stack.enter_context(PausedTraining(arm)) for name, arm in trainers.items()}
        names = {id(arm): name for name, arm in arms.items()}

        def work(arm: PausedTraining) -> None:
            arm.step()

        prepare: Callable[[PausedTraining], None] | None = None
        if job.device != "cpu":

            def prepare(arm: PausedTraining) -> None:
                torch.cuda.reset_peak_memory_stats(job.device)

            def work(arm: PausedTraining) -> None:
                before = torch.cuda.memory_allocated(job.device)
                arm.step()
                taken = torch.cuda.max_memory_allocated(job.device) - before
                memory[names[id(arm)]] = max(memory.get(names[id(arm)], 0), taken)

        times = rounds(arms, work, settings.rounds, job.device, prepare, turns=steps)
    return times, memory


def _figures(job: Job, times: Times, speed: Mapping, settings: Settings) -> list[Figure]:
    figures = []
    for name, (low, middle, high) in speed.items():
        own = statistics.median(seconds for seconds, _ in times[name])
        aim = SPEEDUP if name == mole_name(_JUDGED_EXPERTS) else None
        note = f"{job.global_batch / own:.4g} samples/s, {1000 * own:.4g} ms a step"
        if name != LLAVA_NAME:
            note += f", quartiles {low:.3f}-{high:.3f}"
        figures.append(
            Figure(
                f"samples/s, {name} / {LLAVA_NAME}",
                middle,
                "x",
                aim,
                most=False,
                note=note,
                quartiles=(low, middle, high),
            )
        )
    for experts in settings.experts:
        aim = OVER_LORA if experts == _JUDGED_EXPERTS else None
        figures.append(ratio_figure("step", times, mole_name(experts), LORA, aim))
    many, few = max(settings.experts), min(settings.experts)
    if many > few:
        aim = MANY_OVER_FEW if (many, few) == (16, 2) else None
        figures.append(ratio_figure("step", times, mole_name(many), mole_name(few), aim))
    return figures


def _facts(job: Job, times: Times, settings: Settings) -> list[Figure]:
    """What explains the times: padding, the head's share, and MFU where a peak is known."""
    own = layout_of(job.config, 1)
    padded = Layout(1, job.config.train.per_device_train_batch_size)
    figures = []
    for name, layout in (("padded in the mixture's order", padded), (own.describe(), own)):
        even: Efficiency = efficiency(layout, job.global_batch, job.lengths, job.num_images)
        note = f"{even.micro_steps:.2f} forwards a step"
        figures.append(
            Figure(f"positions that are tokens, {name}", even.useful_tokens, "", note=note)
        )
    config = job.model.config.text_config
    head = job.model.get_output_embeddings().weight.numel()
    layers = sum(p.numel() for p in job.model.model.language_model.layers.parameters())
    figures.append(
        Figure(
            "output head's share of the decoder's weights",
            head / (head + layers),
            "",
            note="2 % at 7B: the larger, the more 'supervised logits only' gives"
            if head > 0.05 * layers
            else f"vocabulary {config.vocab_size:,}",
        )
    )
    supervised = job.targets.sum() / job.lengths.sum()
    figures.append(Figure("supervised share of the tokens", float(supervised), ""))
    if settings.peak:
        figures += _mfu(job, times, settings)
    return figures


def _mfu(job: Job, times: Times, settings: Settings) -> list[Figure]:
    """Model operations over time and peak; padding and recomputation are no model operations."""
    train = dataclasses.replace(job.config.train, deepspeed=None)
    config = dataclasses.replace(job.config, adapter=_adapter(job, "lora"), train=train)
    operations = operations_of(attach(share_parameters(job.model), config), config.adapter)
    images = [sample["pixel_values"] for sample in job.samples if "pixel_values" in sample]
    pixels = any(image.ndim == 4 for image in images)
    total = operations.of(job.lengths, job.targets, job.num_images, tower=pixels).sum()
    a_step = total / (len(job.samples) // job.global_batch)
    return [
        Figure(
            f"MFU, {name}",
            a_step / statistics.median(seconds for seconds, _ in spent) / settings.peak,
            "",
            note=f"{a_step / 1e12:.3g} TFLOP a step of {settings.peak / 1e12:.0f} TFLOP/s",
        )
        for name, spent in times.items()
    ]
