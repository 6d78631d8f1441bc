"""One optimizer step over the micro-batches that its global batch was dealt to."""

import contextlib

import torch
from accelerate.utils import DistributedType
from transformers import Trainer


class AccumulatingTrainer(Trainer):
    """A Trainer to whose loop a batch is the list of a whole step's micro-batches.

    HF accumulates over a fixed number of batches; how many micro-batches a global batch makes
    depends on its samples.
    """

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Forward and backward of each micro-batch; gradients are reduced with the last one.

        Args:
            model: as wrapped for training.
            inputs: the micro-batches of the step, as many on every rank.
            num_items_in_batch: handed on to ``compute_loss``.

        Returns:
            The step's loss, detached.
        """
        *before, last = inputs
        loss = torch.zeros((), device=self.args.device)
        for micro_batch in before:
            # DeepSpeed reads this as "no accumulation boundary".
            self.accelerator.gradient_state._set_sync_gradients(False)
            with self._without_reduction(model):
                loss += super().training_step(model, micro_batch, num_items_in_batch)
        self.accelerator.gradient_state._set_sync_gradients(True)
        return loss + super().training_step(model, last, num_items_in_batch)

    def _without_reduction(self, model) -> contextlib.AbstractContextManager:
        """DDP's or FSDP's ``no_sync``. ZeRO shards gradients and so reduces at each backward."""
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return contextlib.nullcontext()
        return self.accelerator.no_sync(model)
