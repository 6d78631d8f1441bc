"""`MoleTrainer`: HF's Trainer with a token-normalised loss, parts, and checkpoints that are whole.

HF's loop is used as it is; overridden are the data loader, the loss, the optimizer's groups, in
`accumulate.py` the step and in `saving.py` what a checkpoint is. Everything that decides an update
is a sum over the global batch, so the result does not depend on how that batch is cut into ranks
and micro-steps.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import Dataset
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from llava_mole.data.collate import PackedCollator, PaddedCollator, model_inputs
from llava_mole.model.attention import attend_by_sample
from llava_mole.mole import domain_loss
from llava_mole.train.accumulate import AccumulatingTrainer
from llava_mole.train.bad_samples import BadSamples
from llava_mole.train.batches import GlobalBatches, StepCollator, TrainLoader, next_step
from llava_mole.train.config import TrainConfig
from llava_mole.train.counts import GlobalBatch, count_step
from llava_mole.train.heldout import heldout_losses
from llava_mole.train.loss import summed_cross_entropy
from llava_mole.train.meter import Meter, routing_logs
from llava_mole.train.parts import parameter_groups
from llava_mole.train.saving import CheckpointingTrainer, TrainingStopped
from llava_mole.train.zero_gradient import ProjectorAlwaysTakesPart
from llava_mole.tuner import MoleLayer, balance_loss_of, reset_balance_counts, routing_of
from llava_mole.tuner.state import Routing

Evaluate = Callable[[nn.Module, Any, int], dict[str, float]]


class MoleTrainer(CheckpointingTrainer, AccumulatingTrainer):
    """Trains a LLaVA's projector, with or without a MoLE or LoRA adapter.

    Its ``train_dataset`` is a `RankSteps`; a micro-batch is what the ``data_collator``, one of
    ``llava_mole.data``, returns: the model's inputs, plus ``targets (B, M)`` for the M positions in
    ``logits_to_keep``, and ``dataset_ids (S,)``.
    """

    def __init__(
        self,
        *args,
        settings: TrainConfig,
        batch_sampler: GlobalBatches,
        datasets: list[str],
        bad_samples: BadSamples,
        heldout: Mapping[str, Dataset] | None = None,
        evaluate: Evaluate | None = None,
        domains: Sequence[int] | None = None,
        **kwargs,
    ):
        """Sets up HF's Trainer.

        Args:
            *args: HF's.
            settings: rates per part and what HF's arguments do not hold.
            batch_sampler: yields the global batches of an epoch.
            datasets: names; position = the id in ``dataset_ids``.
            bad_samples: what to do about samples that can't be read any more.
            heldout: data sets to report the loss of every ``settings.eval_steps``.
            evaluate: called on every rank with (model, processor, step) at the same steps; what
                it returns on rank 0 is logged.
            domains: each data set's domain, numbered from 0; for ``settings.router_domain_coef``.
            **kwargs: HF's.
        """
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.checkpoint_limit = settings.save_total_limit
        self.batch_sampler = batch_sampler
        self.bad_samples = bad_samples
        self.heldout = dict(heldout or {})
        self.evaluate_callable = evaluate
        self.domains = torch.tensor(domains or [], device=self.args.device)
        self.num_domains = len(set(domains or []))
        self.meter = Meter(datasets, self.args.device)
        self._rates: dict[str, float] = {}
        self._step_loss: torch.Tensor | float = 0.0
        # Our loss is divided by the global batch's counts already.
        self.loss_is_scaled_for_ga = True
        self.is_mole = any(isinstance(module, MoleLayer) for module in self.model.modules())
        if isinstance(self.data_collator, PackedCollator):
            attend_by_sample(self.model)
        self.zero_gradient = ProjectorAlwaysTakesPart(
            self.model, through_tower=is_deepspeed_zero3_enabled()
        )

    # ---- data ----

    def get_train_dataloader(self) -> TrainLoader:
        """This rank's loader. Not prepared by accelerate, which would shard it a second time."""
        workers = self.args.dataloader_num_workers
        return TrainLoader(
            self.train_dataset,
            batch_sampler=self.batch_sampler,
            collate_fn=StepCollator(self.data_collator),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.args.device.type == "cuda",
            # Its own: starting workers must not draw from the generator that dropout uses.
            generator=torch.Generator(),
        )

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of one optimizer step, as one batch of HF's loop, and their counts."""
        assert num_batches == 1, "HF must not accumulate: AccumulatingTrainer does"
        micro_batches = next_step(epoch_iterator)
        total, work = count_step(micro_batches, device)
        step = self.state.global_step + 1
        if total.unreadable:
            own = [problem for batch in micro_batches for problem in batch["problems"]]
            problems = self.bad_samples.meet(own)
            self.bad_samples.count_among(problems, seen=step * total.sequences)
        if total.targets == 0:
            raise TrainingStopped(
                f"step {step}: none of the {total.sequences} samples of this "
                "global batch has a supervised token, so there is nothing to learn from. Look at "
                "the labels with `llava-mole data check`; answers may be cut off by "
                "model.model_max_length."
            )
        for batch in micro_batches:
            self.meter.add_samples(batch["dataset_ids"])
        self.meter.add_step(total, work)
        # Read before the scheduler moves on: the rates that this step's update uses.
        self._rates = {
            f"learning_rate/{group['name']}": group["lr"]
            for group in self.optimizer.param_groups
            if "name" in group
        }
        if self.is_mole:
            reset_balance_counts(self.model)
        return [micro_batches], total

    # ---- loss ----

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Cross-entropy over the global batch's targets, plus the routers' losses, added once."""
        batch: GlobalBatch = num_items_in_batch
        # No cache: with one, packed samples would see each other.
        outputs = model(**model_inputs(inputs), use_cache=False)
        language = summed_cross_entropy(outputs.logits, inputs["targets"]) / batch.targets
        balance = domain = language.new_zeros(())
        if self.is_mole:
            # Of the bare model: unwrapping a wrapped one walks all its modules.
            balance = balance_loss_of(self.model, num_sequences=batch.sequences)
            routing = routing_of(self.model)
            self.meter.add_routing(routing.counts, inputs["dataset_ids"])
            if self.settings.router_domain_coef:
                domain = self._domain_loss(routing, inputs["dataset_ids"]) / batch.sequences
        self.meter.add_loss(language, balance, domain)
        # DDP and DeepSpeed average gradients over ranks; ours are shares of a sum.
        loss = (language + balance + domain) * self.args.world_size
        self._stop_unless_finite(loss.detach())
        return (loss, outputs) if return_outputs else loss

    def _domain_loss(self, routing: Routing, dataset_ids: torch.Tensor) -> torch.Tensor:
        """The sum over this micro-batch's sequences, times its coefficient."""
        domains = self.domains[dataset_ids]
        loss = domain_loss(routing.probs, routing.lengths, domains, self.num_domains)
        return self.settings.router_domain_coef * loss

    def _stop_unless_finite(self, loss: torch.Tensor) -> None:
        """Before the last backward of a step, where the update follows: all ranks stop together."""
        seen = self._step_loss = self._step_loss + loss
        if not self.accelerator.sync_gradients:
            return
        self._step_loss = 0.0
        bad = torch.zeros(self.args.world_size, device=seen.device)
        bad[self.args.process_index] = (~torch.isfinite(seen)).float()
        if dist.is_initialized():
            dist.all_reduce(bad)
        if bad.any():
            ranks = ", ".join(str(rank) for rank in bad.nonzero().flatten().tolist())
            raise TrainingStopped(
                f"step {self.state.global_step + 1}: the loss is NaN or infinite on rank {ranks}; "
                "stopped before the update. The last checkpoint is sound; lower "
                "train.learning_rate or look at the samples of this step."
            )

    def _get_grad_norm(self, model, grad_norm=None):
        """The gradient norm; stops where it is not finite (under DeepSpeed after its update)."""
        if not self.is_deepspeed_enabled:
            # "No part in this step" must mean a zero gradient: AdamW skips a parameter without
            # one, ZeRO does not, and the two drift apart. The optimizer's parameters, not the
            # model's: finding those of a 7B model takes 9 ms, in which a GPU has nothing to do.
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
        grad_norm = super()._get_grad_norm(model, grad_norm)
        if grad_norm is not None and not math.isfinite(grad_norm):
            raise TrainingStopped(
                f"step {self.state.global_step + 1}: the gradient norm is NaN or infinite. The "
                "last checkpoint is sound; lower train.learning_rate or train.max_grad_norm."
            )
        return grad_norm

    def floating_point_ops(self, inputs) -> int:
        """Not counted: HF's formula would walk all parameters at each micro-step."""
        return 0

    # ---- optimizer ----

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """AdamW with a group per part: projector, router, experts, LoRA."""
        if self.optimizer is None:
            model = self.model if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            decayed = set(self.get_decay_parameter_names(model))
            groups = list(parameter_groups(model, self.settings, decayed))
            self.optimizer = kind(groups, **options)
        return self.optimizer

    # ---- logs and evaluation ----

    def log(self, logs: dict, start_time: float | None = None) -> None:
        """Adds to HF's training logs the loss's parts, the rates, speed, mixture and routing."""
        if "loss" in logs:
            more, counts = self.meter.read()
            logs.update(more)
            logs.update(self._rates)
            if counts is not None:
                logs.update(routing_logs(counts, self.meter.datasets))
        super().log(logs, start_time)

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Losses of the held-out sets, and what the callable measures.

        Neither gradients nor random states change, so a run evaluates as often as it likes and
        ends the same.
        """
        training = self.model.training
        self.model.eval()
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            metrics, problems = heldout_losses(
                self.model_wrapped,
                self.heldout,
                PaddedCollator(self.processing_class.tokenizer.pad_token_id),
                self.settings.per_device_train_batch_size,
                self._prepare_inputs,
            )
            self.bad_samples.meet(problems)
            if self.evaluate_callable is not None:
                step = self.state.global_step
                # Generation goes past the wrapped forward, and with it past its autocast.
                with self.accelerator.autocast():
                    metrics |= self.evaluate_callable(self.model, self.processing_class, step)
        self.accelerator.wait_for_everyone()
        self.model.train(training)
        metrics = {f"eval/{name}": value for name, value in metrics.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics
