"""What a run shows and writes while it goes: a progress bar and ``metrics.jsonl``; wandb's mode."""

import json
import math
import netrc
import os
from pathlib import Path

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

METRICS = "metrics.jsonl"


class MetricsFile(TrainerCallback):
    """One JSON object a log line, on rank 0. A resumed run goes on after its checkpoint's step."""

    def __init__(self, output_dir: str | Path):
        """Writes to ``metrics.jsonl`` below ``output_dir``."""
        self.path = Path(output_dir) / METRICS

    def on_train_begin(self, args, state, control, **kwargs):
        """Drops what a killed run had logged behind the checkpoint it now goes on from."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in self._lines() if json.loads(line)["step"] <= state.global_step]
        if state.global_step == 0:
            kept = []
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, self.path)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Appends ``logs``; a number JSON has no word for becomes null."""
        if not state.is_world_process_zero or not logs:
            return
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in logs.items()
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **values}) + "\n")

    def _lines(self) -> list[str]:
        """Whole lines only: the last one of a killed run may be cut off."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


class RotaryInFloat32(TrainerCallback):
    """Refuses a model whose rotary frequencies were cast on the way into training.

    DeepSpeed before 0.19.2 casts every buffer to bfloat16, which turns position 1,000 by up to 1.2
    radians against the model that is loaded later, and says nothing.
    """

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Raises ValueError where one is not float32."""
        for name, buffer in model.named_buffers():
            if name.endswith("inv_freq") and buffer.dtype != torch.float32:
                raise ValueError(
                    f"{name} is {buffer.dtype}, and rotary embeddings need float32: DeepSpeed "
                    "before 0.19.2 casts it; pip install -U 'deepspeed>=0.19.2'."
                )


class TrainingBar(ProgressCallback):
    """HF's progress bar with the loss on it, instead of every metric printed below it."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Shows loss, rate and speed."""
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        shown = {}
        if "loss" in logs:
            shown["loss"] = f"{logs['loss']:.4f}"
        if "learning_rate" in logs:
            shown["lr"] = f"{logs['learning_rate']:.2e}"
        if "tokens_per_second" in logs:
            shown["tok/s"] = f"{logs['tokens_per_second']:.0f}"
        if shown:
            self.training_bar.set_postfix(shown)


def settle_wandb(report_to: list[str], run_dir: str | Path) -> None:
    """Keeps wandb from ever asking or waiting: offline without a key, its files in the run.

    A ``WANDB_MODE`` that the user set stays.
    """
    if "tensorboard" in report_to:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(Path(run_dir) / "tensorboard"))
    if "wandb" not in report_to:
        return
    os.environ.setdefault("WANDB_PROJECT", "llava-mole")
    os.environ.setdefault("WANDB_DIR", str(run_dir))
    os.environ.setdefault("WANDB_SILENT", "true")
    if "WANDB_MODE" not in os.environ and not _wandb_key():
        os.environ["WANDB_MODE"] = "offline"


def _wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


class EvaluateEvery(TrainerCallback):
    """Asks for an evaluation every ``steps`` and after the last step."""

    def __init__(self, steps: int):
        """``steps``: optimizer steps between evaluations; 0 never."""
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        """Sets ``should_evaluate``."""
        step = state.global_step
        if self.steps and (step % self.steps == 0 or step == state.max_steps):
            control.should_evaluate = True
        return control
