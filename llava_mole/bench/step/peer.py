"""LLaVA's way in HF's Trainer, as LLaVA trains, with each lever of a `Way` where it belongs."""

from typing import Any

import torch
from torch import nn

from llava_mole.data.collate import model_inputs
from llava_mole.train.accumulate import AccumulatingTrainer
from llava_mole.train.batches import GlobalBatches, StepCollator, TrainLoader, next_step
from llava_mole.train.counts import count
from llava_mole.train.loss import summed_cross_entropy


class PeerTrainer(AccumulatingTrainer):
    """HF's Trainer and optimizer on one rank; its micro-batches are those of our collators.

    A batch with ``labels`` goes through transformers' own loss; one with ``logits_to_keep`` through
    the sum over supervised positions. Either is divided by the step's targets.
    """

    def __init__(self, *args, batch_sampler: GlobalBatches, **kwargs):
        """Sets up HF's Trainer.

        Args:
            *args: HF's.
            batch_sampler: yields the global batches of an epoch.
            **kwargs: HF's.
        """
        super().__init__(*args, **kwargs)
        self.batch_sampler = batch_sampler
        self.loss_is_scaled_for_ga = True

    def get_train_dataloader(self) -> TrainLoader:
        """A step's micro-batches an item, as accumulation needs them."""
        return TrainLoader(
            self.train_dataset,
            batch_sampler=self.batch_sampler,
            collate_fn=StepCollator(self.data_collator),
            pin_memory=self.args.device.type == "cuda",
            generator=torch.Generator(),
        )

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of the next step, as one batch of HF's loop, and their targets."""
        micro_batches = next_step(epoch_iterator)
        return [micro_batches], sum(count(batch).targets for batch in micro_batches)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ):
        """Cross-entropy over the step's targets."""
        outputs = model(
            **model_inputs(inputs),
            use_cache=False,
            **({"num_items_in_batch": num_items_in_batch} if "labels" in inputs else {}),
        )
        loss = outputs.loss
        if loss is None:
            loss = summed_cross_entropy(outputs.logits, inputs["targets"]) / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs) -> int:
        """Not counted, as in our trainer."""
        return 0
