"""The model whose gradients are measured, and where in training its weights are."""

import dataclasses
import tempfile
from pathlib import Path

import torch
from torch import nn

from llava_mole.config import load
from llava_mole.data.config import EvalConfig
from llava_mole.model.build import build_model
from llava_mole.model.freeze import freeze
from llava_mole.model.load import ADAPTER_CONFIG, RUN_CONFIG, load_run
from llava_mole.train.adapter import attach
from llava_mole.train.config import RunConfig
from llava_mole.train.run import train as train_run


def run_config_of(run: str) -> RunConfig:
    """The config that a run (or one of its checkpoints) was trained with.

    Raises:
        ValueError: there is none.
    """
    folder = Path(run)
    for place in (folder, folder.parent):
        if (place / RUN_CONFIG).is_file():
            return load(RunConfig, place / RUN_CONFIG)
    raise ValueError(
        f"--model-path {run}: no {RUN_CONFIG} there or one above; give a run directory or one of "
        "its checkpoint-N"
    )


def with_model_of(config: RunConfig, run: str) -> RunConfig:
    """``config`` with a run's model, as its weights are measured.

    Raises:
        ValueError: no such run, or one without an adapter.
    """
    trained = run_config_of(run)
    if not (Path(run) / ADAPTER_CONFIG).is_file():
        raise ValueError(
            f"--model-path {run}: no {ADAPTER_CONFIG} there, so no adapter to measure; give a "
            "finetuning run, or one of its checkpoint-N"
        )
    # Nothing is trained, and the run's adapter may have no router for the config's loss of routers.
    train = dataclasses.replace(config.train, router_domain_coef=0.0)
    return dataclasses.replace(config, model=trained.model, adapter=trained.adapter, train=train)


def refuse_warmup_alone(config: RunConfig, steps: int) -> None:
    """Raises ValueError where ``steps`` of training first would not get beyond the warm-up."""
    warmup = config.train.warmup_steps
    if 0 < steps <= warmup:
        raise ValueError(
            f"--steps-before is {steps} and train.warmup_steps {warmup}: the rate would never be "
            f"reached; take more steps, or add train.warmup_steps={steps // 10}"
        )


def model_at(config: RunConfig, device: str, steps: int, run: str | None) -> tuple[nn.Module, str]:
    """The model as a run trains it, and a few words on where in training its weights are.

    Args:
        config: the run.
        device: where the model is put.
        steps: optimizer steps that are trained first, on the config's mixture.
        run: a run directory whose weights are taken instead; None for the config's own.

    Raises:
        ValueError: whatever keeps the run from starting.
    """
    if run is not None:
        return _trained(config, run, device), f"of {run}"
    if steps:
        with tempfile.TemporaryDirectory(prefix="conflicts-") as folder:
            train_run(_short(config, device, steps, folder), resume="never")
            model = _trained(config, folder, device)
        return model, f"after {steps} steps on the mixture"
    with torch.random.fork_rng(devices=[]):
        # As a run does, so that its A are these.
        torch.manual_seed(config.seed)
        model = attach(build_model(config.model), config)
    return model.to(device), "at initialisation"


def autocast_of(config: RunConfig) -> torch.dtype | None:
    """Mixed precision as in training; also where a frozen base of another dtype asks for it."""
    if config.train.bf16:
        return torch.bfloat16
    return None if config.model.dtype == "float32" else getattr(torch, config.model.dtype)


def _trained(config: RunConfig, run: str, device: str) -> nn.Module:
    model, _ = load_run(run, device=device)
    freeze(model, "finetune", config.train.freeze_mm_mlp_adapter)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return model


def _short(config: RunConfig, device: str, steps: int, folder: str) -> RunConfig:
    """The config's run, cut to a few steps in this process."""
    changed = dataclasses.replace(
        config.train,
        max_steps=steps,
        save_steps=0,
        eval_steps=0,
        report_to=[],
        deepspeed=None,
        use_cpu=device == "cpu",
    )
    data = dataclasses.replace(config.data, eval=EvalConfig())
    return dataclasses.replace(config, train=changed, data=data, output_dir=folder)
