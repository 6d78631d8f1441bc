"""HF's Trainer with checkpoints that are complete, staged and verified (see `checkpoints.py`)."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import Trainer

from llava_mole.train import checkpoints, weights
from llava_mole.train.bad_samples import BadSamples
from llava_mole.train.meter import Meter

PROGRESS = "progress.json"

logger = logging.getLogger(__name__)


class TrainingStopped(ValueError):
    """Training can't go on; the message names the step and the reason."""


class CheckpointingTrainer(Trainer):
    """Saves and resumes: trained weights, optimizer, scheduler, random states, data position.

    Attributes:
        meter: its totals travel in ``progress.json``.
        bad_samples: their count travels with it.
        checkpoint_limit: newest checkpoints kept; None keeps all.
    """

    meter: Meter
    bad_samples: BadSamples
    checkpoint_limit: int | None = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the trained parts and the processor; collective under ZeRO-3 and FSDP."""
        state = weights.trained_state(self.model, self.accelerator)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            weights.save_trained(self.model, state, folder)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)

    def _save_checkpoint(self, model, trial) -> None:
        step = self.state.global_step
        output_dir = Path(self.args.output_dir)
        staged = checkpoints.staging_folder(output_dir, step)
        self._on_rank_0(lambda: self._make_room(output_dir, staged))
        self.save_model(str(staged), _internal_call=True)
        self._save_optimizer_and_scheduler(str(staged))
        self._save_scaler(str(staged))
        self._save_rng_state(str(staged))
        progress = {**self.meter.state(), "unreadable": self.bad_samples.count}
        if self.args.should_save:
            self.state.save_to_json(str(staged / "trainer_state.json"))
            (staged / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
        self.accelerator.wait_for_everyone()
        self._on_rank_0(lambda: self._publish(output_dir, staged, step))

    def _make_room(self, output_dir: Path, staged: Path) -> None:
        checkpoints.remove_stale(output_dir, keep=None)
        checkpoints.check_space(
            output_dir, weights.checkpoint_bytes(self.model, self.is_deepspeed_enabled)
        )
        staged.mkdir()

    def _publish(self, output_dir: Path, staged: Path, step: int) -> None:
        checkpoints.write_manifest(
            staged,
            step=step,
            world_size=self.args.world_size,
            zero_stage=self._zero_stage(),
        )
        checkpoints.publish(staged, output_dir, step)
        for passed in checkpoints.set_aside(output_dir, beyond=step):
            logger.warning("%s: the run went on from before it; kept as %s", *passed)
        checkpoints.remove_stale(output_dir, keep=self.checkpoint_limit)

    def _on_rank_0(self, action: Callable[[], None]) -> None:
        """Runs ``action`` on rank 0; where it fails every rank raises, so that none waits."""
        error = None
        if self.is_world_process_zero():
            try:
                action()
            except OSError as problem:
                error = problem
        failed = torch.tensor([float(error is not None)], device=self.args.device)
        if dist.is_initialized():
            dist.all_reduce(failed)
        if error is not None:
            raise error
        if failed.item():
            raise TrainingStopped(f"step {self.state.global_step}: rank 0 could not save")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # HF leaves frozen parameters out for PEFT models only; stage 1 is not one, and would
        # write the whole base with each checkpoint.
        self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _zero_stage(self) -> int:
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        return plugin.zero_stage if plugin is not None else 0

    def _run_epoch(self, *args, **kwargs) -> None:
        if self.state.global_step >= self.state.max_steps:
            # HF looks only after a step: a run that was killed between its last checkpoint and its
            # end would make one too many.
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None) -> None:
        if self.is_fsdp_enabled:
            raise ValueError(
                f"{resume_from_checkpoint}: runs under FSDP can't be resumed yet; train with "
                "DeepSpeed, or again in a new output_dir."
            )
        weights.load_trained(model or self.model, Path(resume_from_checkpoint))

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        if resume_from_checkpoint is not None:
            progress = Path(resume_from_checkpoint) / PROGRESS
            state = json.loads(progress.read_text(encoding="utf-8"))
            self.meter.restore(state)
            self.bad_samples.count = state.get("unreadable", 0)
        if resume_from_checkpoint is None or not self.is_deepspeed_enabled:
            return super()._prepare_for_training(
                max_steps, train_dataloader, resume_from_checkpoint
            )
        # HF would insist on the frozen parameters of a model that is not PEFT's.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self._refuse_another_layout(resume_from_checkpoint)
        path, _ = self.model_wrapped.load_checkpoint(
            resume_from_checkpoint, load_module_strict=False
        )
        if path is None:
            raise ValueError(f"{resume_from_checkpoint}: DeepSpeed found nothing to load")
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _refuse_another_layout(self, checkpoint: str) -> None:
        manifest = checkpoints.read_manifest(Path(checkpoint))
        for key, now in (("world_size", self.args.world_size), ("zero_stage", self._zero_stage())):
            if manifest[key] != now:
                raise ValueError(
                    f"{checkpoint}: its optimizer state is sharded for {key} {manifest[key]}, this "
                    f"run has {key} {now}; start it with {key} {manifest[key]}, or in a new "
                    "output_dir."
                )
