"""The arms as trainers: LLaVA's way in HF's, plain LoRA and MoLE in the product's own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from llava_mole.bench.sharing import share_parameters
from llava_mole.bench.step.peer import PeerTrainer
from llava_mole.bench.step.samples import Job
from llava_mole.bench.step.ways import Way, WithLabels, llava_order
from llava_mole.data.collate import PackedCollator, PaddedCollator, Sample
from llava_mole.data.layout import Layout
from llava_mole.train.adapter import attach
from llava_mole.train.arguments import training_arguments
from llava_mole.train.bad_samples import BadSamples
from llava_mole.train.batches import GlobalBatches, RankSteps, layout_of
from llava_mole.train.callbacks import MetricsFile
from llava_mole.train.config import AdapterConfig, RunConfig
from llava_mole.train.run import BAD_RECORDS
from llava_mole.train.trainer import MoleTrainer

# So wide that a wrong expert or LoRA would show in the loss; PEFT starts with B = 0.
_B_DEVIATION = 0.02
_STEPS = 10**6


def peer(job: Job, way: Way, folder: Path) -> PeerTrainer:
    """An arm of LLaVA's kind: a plain LoRA, as `Way` says.

    Args:
        job: model, samples and run config; rank and alpha of the LoRA are the config's.
        way: the levers.
        folder: the trainer's output directory, its own.
    """
    adapter = AdapterConfig(
        type="lora",
        r=job.config.adapter.r,
        lora_alpha=job.config.adapter.lora_alpha,
        lora_dropout=way.dropout,
    )
    config = _config(job, adapter, folder, checkpointing=way.checkpointing)
    model = _model(job, config)
    if way.checkpointing:
        # As LLaVA does: else a checkpointed layer whose input has no gradient would not train.
        model.enable_input_require_grads()
    size, batch = job.global_batch, job.config.train.per_device_train_batch_size
    order = list(range(len(job.samples)))
    if way.grouped:
        order = llava_order(job.lengths, job.num_images, size, batch)
    layout, collate = _padded(job)
    if way.packed:
        layout, collate = layout_of(job.config, 1), PackedCollator()
    return _quiet(
        PeerTrainer(
            model=model,
            args=training_arguments(config),
            train_dataset=_steps(job, layout),
            data_collator=collate if way.supervised else WithLabels(collate),
            batch_sampler=GlobalBatches(_Order(order, size)),
        )
    )


def ours(job: Job, adapter: AdapterConfig, folder: Path, padded: bool = False) -> MoleTrainer:
    """The product's trainer with an adapter, everything else as in the run config.

    Args:
        job: model, samples and run config.
        adapter: plain LoRA or a MoLE.
        folder: the trainer's output directory, its own.
        padded: padded micro-batches whatever the config says, to compare losses with.
    """
    checkpointing = job.config.train.gradient_checkpointing
    config = _config(job, adapter, folder, checkpointing=checkpointing)
    layout, collate = _padded(job)
    if config.data.packing and not padded:
        layout, collate = layout_of(config, 1), PackedCollator()
    return _quiet(
        MoleTrainer(
            model=_model(job, config),
            args=training_arguments(config),
            train_dataset=_steps(job, layout),
            data_collator=collate,
            processing_class=job.processor,
            settings=config.train,
            batch_sampler=GlobalBatches(_Order(range(len(job.samples)), job.global_batch)),
            datasets=job.datasets,
            bad_samples=BadSamples(folder / BAD_RECORDS, "fail", 0.0),
            domains=job.domains,
            callbacks=[MetricsFile(folder)],
        )
    )


class _Order(Sampler[tuple[int, int]]):
    """The same samples every epoch, in a given order: what `EpochSampler` is to a run."""

    def __init__(self, order: Sequence[int], global_batch_size: int):
        self.order, self.global_batch_size = order, global_batch_size

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes: rounds are compared with one another."""

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self):
        return iter([(0, position) for position in self.order])


class _InMemory(Dataset):
    def __init__(self, samples: Sequence[Sample]):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        return self.samples[index[1]]


def _steps(job: Job, layout: Layout) -> RankSteps:
    return RankSteps(_InMemory(job.samples), [job.lengths], [job.num_images], layout, rank=0)


def _padded(job: Job) -> tuple[Layout, PaddedCollator]:
    layout = Layout(1, job.config.train.per_device_train_batch_size)
    return layout, PaddedCollator(job.processor.tokenizer.pad_token_id)


def _config(job: Job, adapter: AdapterConfig, folder: Path, checkpointing: bool) -> RunConfig:
    folder.mkdir(parents=True, exist_ok=True)
    train = dataclasses.replace(
        job.config.train,
        gradient_checkpointing=checkpointing,
        max_steps=_STEPS,
        save_steps=0,
        eval_steps=0,
        report_to=[],
        disable_tqdm=True,
        use_cpu=job.device == "cpu",
        deepspeed=None,
    )
    data = dataclasses.replace(job.config.data, num_workers=0)
    return dataclasses.replace(
        job.config, adapter=adapter, train=train, data=data, output_dir=str(folder)
    )


def _model(job: Job, config: RunConfig) -> nn.Module:
    # The seed of the adapter: plain LoRAs are equal in all arms that have one.
    torch.manual_seed(config.seed)
    model = attach(share_parameters(job.model), config)
    generator = torch.Generator(job.device).manual_seed(config.seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and ("lora_" in name or ".mole_" in name) and not weight.any():
                weight.normal_(std=_B_DEVIATION, generator=generator)
    if config.train.gradient_checkpointing:
        # HF turns it on when training begins; losses are compared before.
        options = dict(training_arguments(config).activation_checkpointing_kwargs)
        every = options.pop("every_n_layers")
        model.get_base_model().activation_checkpointing_enable(options, every_n_layers=every)
    return model


def _quiet(trainer: Trainer) -> Trainer:
    for noisy in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(noisy)
    return trainer
