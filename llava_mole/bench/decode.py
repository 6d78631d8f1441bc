"""Decoding with MoLE against decoding with a plain LoRA, side by side in one process.

Arms on the same base weights: the base model, PEFT's LoRA of the same rank on the very same linears
as MoLE (the bar), and MoLE with each number of experts. Two figures each: a whole greedy answer, as
`llava_mole.generate` gives it, and the decode step alone (one token, key-value cache).

The arms are timed in shuffled order (`llava_mole.bench.timing`), the decode steps by turns token by
token; a ratio is the median over rounds of ``arm / LoRA`` within one round.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from PIL import Image
from torch import nn
from transformers import BatchFeature, GenerationConfig

from llava_mole.bench.figures import Figure, say
from llava_mole.bench.sharing import share_parameters
from llava_mole.bench.small import small_llava
from llava_mole.bench.timing import Times, ratio_figure, rounds
from llava_mole.generate import encode_prompts
from llava_mole.model.load import load_run
from llava_mole.train.adapter import peft_config
from llava_mole.train.config import AdapterConfig
from llava_mole.tuner import routing_of

AIM = 1.05
BASE, LORA = "base", "LoRA"
# Largest difference from the reference path over the largest logit. In bfloat16 a rounding may
# send a token to another expert, so there the mean difference is held.
_TOLERANCE = 1e-4
_MEAN_TOLERANCE = 5e-2


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        experts: numbers of experts, an arm each.
        batch_sizes: conversations at once.
        new_tokens: length of every answer in tokens, exactly.
        rounds: how often every arm is timed, after one round to warm up.
        r: rank of the LoRA and of every expert; 16 on a width of 576 is the quickstart's.
        device: ``cpu`` (one thread) or ``cuda``.
        dtype: of the small model's base, ``float32`` or ``bfloat16``.
        size: width, FFN width and layers of the small model; SmolLM2-135M's first two.
        model_path: a run whose base model is measured in place of the small one.
    """

    experts: Sequence[int] = (3, 8)
    batch_sizes: Sequence[int] = (1, 8)
    new_tokens: int = 32
    rounds: int = 15
    r: int = 16
    device: str = "cpu"
    dtype: str = "float32"
    size: Sequence[int] = (576, 1536, 6)
    model_path: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for settings that cannot be measured."""
        counts = (*self.experts, *self.batch_sizes, self.new_tokens, self.r, *self.size)
        if min(counts) < 1 or len(self.size) != 3:
            raise ValueError(
                "--experts, --batch-sizes, --new-tokens, --rank and --size (WIDTH,FFN,LAYERS) "
                "take numbers >= 1"
            )
        if self.rounds < 3:
            raise ValueError(f"--rounds {self.rounds}: quartiles need at least 3")


@torch.inference_mode()
def run(settings: Settings) -> list[Figure]:
    """Builds the arms, checks MoLE against its reference path, and times all of them.

    Raises:
        ValueError: no such run.
        RuntimeError: MoLE differs from its reference, so that its speed would mean nothing.
    """
    if settings.device == "cpu":
        torch.set_num_threads(1)
    if settings.model_path:
        base, processor = load_run(settings.model_path, device=settings.device)
        base = base.unload() if isinstance(base, PeftModel) else base
    else:
        base, processor = small_llava(settings.size, settings.dtype)
        base = base.to(settings.device)
    arms = _arms(base, settings)
    figures = []
    for batch_size in settings.batch_sizes:
        inputs = _prompts(processor, batch_size).to(settings.device)
        say(f"batch {batch_size}: prompts of {inputs['input_ids'].shape[1]} tokens")
        steps = {name: _Steps(model, inputs, settings.new_tokens) for name, model in arms.items()}
        used = {name: _check(name, arms[name], steps[name]) for name in list(arms)[2:]}
        answers, tokens = _time(arms, steps, inputs, settings)
        for what, times in (("answer", answers), ("decode step", tokens)):
            figures += _figures(f"batch {batch_size}, {what}", times, used)
    return figures


def generate(model: nn.Module, inputs: Mapping[str, torch.Tensor], new_tokens: int) -> torch.Tensor:
    """Greedy decoding of exactly ``new_tokens`` tokens: `llava_mole.generate` without early stop.

    Returns:
        ``(B, L + new_tokens)`` ids.
    """
    settings = GenerationConfig(
        do_sample=False,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    return model.generate(**inputs, generation_config=settings)


class _Steps:
    """Decode steps of one arm; every arm reads the same tokens, so that all do the same work."""

    def __init__(self, model: nn.Module, inputs: Mapping[str, torch.Tensor], count: int):
        self.model, self.count = model, count
        ids = inputs["input_ids"]
        self.length = ids.shape[1]
        # Drawn at random: an untrained model's own would soon repeat one token.
        generator = torch.Generator().manual_seed(self.length)
        tokens = torch.randint(3, 200, (len(ids), count), generator=generator).to(ids.device)
        self.inputs, self.tokens = inputs, tokens
        self.mask = torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], dim=1)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        self.prefill()

    def prefill(self) -> torch.Tensor:
        """Reads the prompts; returns their last tokens' logits ``(B, V)``."""
        positions = self.positions[:, : self.length]
        output = self.model(**self.inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
        self.cache = output.past_key_values
        return output.logits[:, -1]

    def rewind(self) -> None:
        """Back to the end of the prompts."""
        if extra := self.cache.get_seq_length() - self.length:
            self.cache.crop(-extra)

    def rewind_at_end(self) -> None:
        """Back to the end of the prompts if all tokens were read."""
        if self.cache.get_seq_length() - self.length == self.count:
            self.rewind()

    def next(self) -> torch.Tensor:
        """The logits ``(B, V)`` after the token that comes next."""
        return self.step(self.cache.get_seq_length() - self.length)

    def step(self, index: int) -> torch.Tensor:
        """The logits ``(B, V)`` after one more token of each row."""
        end = self.length + index + 1
        output = self.model(
            input_ids=self.tokens[:, index : index + 1],
            attention_mask=self.mask[:, :end],
            position_ids=self.positions[:, end - 1 : end],
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits[:, -1]


def _arms(base: nn.Module, settings: Settings) -> dict[str, nn.Module]:
    adapters = {LORA: AdapterConfig(type="lora")}
    adapters |= {f"MoLE K={k}": AdapterConfig(type="mole", num_experts=k) for k in settings.experts}
    arms = {BASE: share_parameters(base)}
    for name, adapter in adapters.items():
        adapter.r, adapter.lora_alpha, adapter.lora_dropout = settings.r, 2 * settings.r, 0.0
        model = share_parameters(base)
        torch.manual_seed(0)
        model = get_peft_model(model, peft_config(adapter, model))
        for key, weight in model.named_parameters():
            # PEFT starts with B = 0, which would hide a wrong expert.
            if ("lora_B" in key or ".mole_" in key) and not weight.any():
                weight.normal_(std=0.02)
        arms[name] = model.eval()
    return arms


def _prompts(processor: Any, batch_size: int) -> BatchFeature:
    generator = np.random.default_rng(0)
    batch = []
    for row in range(batch_size):
        # Unlike each other, so that rows do not all choose the same experts.
        pixels = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        question = " ".join(["what is shown here", "and where", "in which colour"][: 1 + row % 3])
        turns = [{"role": "user", "content": f"<image>\nQuestion {row}: {question}?"}]
        batch.append((Image.fromarray(pixels).resize((320, 240)), turns))
    return encode_prompts(processor, batch)


def _check(name: str, model: nn.Module, steps: _Steps) -> float:
    """Compares logits with those of the loop over experts.

    Returns:
        Distinct experts that the rows of a decode step choose, mean over steps and FFNs.
    """
    logits = [steps.prefill()]
    used = []
    for index in range(steps.count):
        logits.append(steps.step(index))
        used.append(routing_of(model).counts.sum(1).count_nonzero(-1).float().mean().item())
    with _dispatch(model, "loop"):
        expected = [steps.prefill(), *map(steps.step, range(steps.count))]
    reference = torch.stack(expected).float()
    difference = (torch.stack(logits).float() - reference).abs() / reference.abs().max()
    exact = logits[0].dtype == torch.float32
    if difference.max() > _TOLERANCE if exact else difference.mean() > _MEAN_TOLERANCE:
        raise RuntimeError(
            f"{name}: logits differ from the reference path's by {difference.max():.2g} of the "
            f"largest (mean {difference.mean():.2g}); not timed"
        )
    return statistics.mean(used)


@contextmanager
def _dispatch(model: nn.Module, path: str) -> Iterator[None]:
    config = model.peft_config["default"]
    before, config.dispatch = config.dispatch, path
    try:
        yield
    finally:
        config.dispatch = before


def _time(
    arms: dict[str, nn.Module], steps: dict[str, _Steps], inputs: BatchFeature, settings: Settings
) -> tuple[Times, Times]:
    """Seconds per round of every arm: answers, and decode steps by turns token by token."""
    count, device = settings.new_tokens, settings.device
    answers = rounds(arms, lambda model: generate(model, inputs, count), settings.rounds, device)
    tokens = rounds(
        steps, _Steps.next, settings.rounds, device, prepare=_Steps.rewind_at_end, turns=count
    )
    return answers, tokens


def _figures(what: str, times: Times, used: Mapping[str, float]) -> list[Figure]:
    figures = []
    for name in times:
        aim, note = (AIM, f"{used[name]:.1f} experts a step") if name in used else (None, "")
        figures.append(ratio_figure(what, times, name, LORA, aim, note))
    return figures
