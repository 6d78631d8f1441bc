"""One training run from its config: `train`.

build model and processor -> attach the adapter, freeze -> open and check the data -> trainer
-> save
"""

import logging
import os
import pickle
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import set_seed
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from llava_mole.data.build import OpenData, open_data
from llava_mole.data.collate import PackedCollator, PaddedCollator
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.sampler import EpochSampler
from llava_mole.data.tokens.encode import Encoder
from llava_mole.files import refuse_unwritable_folder
from llava_mole.model.build import build_model
from llava_mole.model.liger import apply_liger_kernel
from llava_mole.model.processor import build_processor
from llava_mole.train import order, rundir
from llava_mole.train.adapter import attach
from llava_mole.train.arguments import training_arguments
from llava_mole.train.bad_samples import BadSamples, add_to_report, read_report
from llava_mole.train.batches import (
    GlobalBatches,
    RankSteps,
    layout_of,
    refuse_samples_longer_than_a_row,
)
from llava_mole.train.callbacks import (
    EvaluateEvery,
    MetricsFile,
    RotaryInFloat32,
    TrainingBar,
    settle_wandb,
)
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for
from llava_mole.train.features import vision_features
from llava_mole.train.trainer import Evaluate, MoleTrainer

BAD_RECORDS = "bad_records.jsonl"

logger = logging.getLogger(__name__)


def train(config: RunConfig, resume: str = "auto", evaluate: Evaluate | None = None) -> Path:
    """Trains one stage, on as many ranks as were launched.

    Args:
        config: the run.
        resume: ``auto`` goes on from the newest valid checkpoint in the run directory (and
            returns at once where the run is finished), ``never`` insists on a fresh start, a path
            names a checkpoint.
        evaluate: called on every rank with (model, processor, step) every ``train.eval_steps``;
            what it returns on rank 0 is logged.

    Returns:
        The run directory: adapter or projector, processor, config, versions, metrics.

    Raises:
        ValueError: anything in config, data, model or checkpoints that keeps the run from
            starting, or from going on.
    """
    config = rundir.resolve(config)
    folder = Path(config.output_dir)
    rundir.refuse_another_config(config)
    if resume != "never" and rundir.finished(folder):
        logger.warning("%s is finished: nothing to do", folder)
        return folder
    if os.environ.get("RANK", "0") == "0":
        refuse_unwritable_folder(folder, "output_dir")

    set_seed(config.seed)
    # Before the arguments: once these announce ZeRO-3, loading would shard what it loads.
    model = attach(build_model(config.model), config)
    if config.train.use_liger_kernel:
        apply_liger_kernel(model)
    processor = build_processor(config.model)
    settle_wandb(config.train.report_to, folder)
    arguments = training_arguments(config)
    if evaluate is not None:
        _refuse_sharded()
    checkpoint = _on_rank_0_first(lambda: _start(config, resume))

    encoder = encoder_for(config.model, processor, config.data.overlong)
    data = _on_rank_0_first(lambda: _open(config, encoder, resuming=checkpoint is not None))
    layout = layout_of(config, arguments.world_size)
    refuse_samples_longer_than_a_row(data, layout)
    if arguments.process_index == 0:
        logger.info("the mixture:\n%s", data.mixture.table())
        logger.info(
            "each global batch of %d: %s", config.train.global_batch_size, layout.describe()
        )
    pixels = ProcessorPixels(processor.image_processor)
    # First of all machines: they share the cache.
    with arguments.main_process_first(local=False, desc="vision features"):
        features = vision_features(config, model, data, pixels, arguments.device)

    pad = processor.tokenizer.pad_token_id
    heldout = data.eval_samples(encoder, pixels, features, config.data.eval.max_samples)
    trainer = MoleTrainer(
        model=model,
        args=arguments,
        train_dataset=RankSteps(
            data.samples(encoder, pixels, features).marking(pad),
            data.lengths,
            data.num_images,
            layout,
            arguments.process_index,
        ),
        data_collator=PackedCollator() if config.data.packing else PaddedCollator(pad),
        processing_class=processor,
        settings=config.train,
        batch_sampler=GlobalBatches(EpochSampler(data.mixture, config.train.global_batch_size)),
        datasets=data.names,
        bad_samples=BadSamples(
            folder / BAD_RECORDS, config.data.on_bad_record, config.data.max_bad_fraction
        ),
        heldout={name: samples.marking(pad) for name, samples in heldout.items()},
        evaluate=evaluate,
        domains=_domains(data),
        callbacks=[
            RotaryInFloat32(),
            MetricsFile(folder),
            EvaluateEvery(config.train.eval_steps),
        ],
    )
    # HF's own two print every metric of a log line; the file has them.
    for noisy in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(noisy)
    if not config.train.disable_tqdm:
        trainer.add_callback(TrainingBar)
    on_gpu = arguments.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    done = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        rundir.finish(
            config,
            trainer.state.global_step,
            # Of the last attempt, and of this rank.
            seconds=done.metrics["train_runtime"],
            peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else None,
        )
    trainer.accelerator.wait_for_everyone()
    return folder


def _domains(data: OpenData) -> list[int]:
    """The mixture's data sets' domains, numbered in the config's order."""
    names = list(dict.fromkeys(records.domain for records in data.sets))
    return [names.index(records.domain) for records in data.sets]


def _refuse_sharded() -> None:
    """Raises ValueError where a rank holds parts of the weights only, and can't generate alone."""
    # Set by accelerate's launcher; there is no other way into FSDP here.
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")
    if is_deepspeed_zero3_enabled() or fsdp:
        raise ValueError(
            "data.eval.benchmarks can't be asked under ZeRO-3 or FSDP, where no rank has the whole "
            "model; use ZeRO-2, or score checkpoints with 'llava-mole eval'."
        )


def _start(config: RunConfig, resume: str) -> Path | None:
    """Prepares the run directory and finds where to go on; says what it passed over."""
    folder = Path(config.output_dir)
    rundir.prepare(config)
    checkpoint, messages = rundir.starting_point(folder, resume)
    for message in messages:
        logger.warning(message)
    if checkpoint is not None:
        logger.warning("going on from %s", checkpoint)
    return checkpoint


def _open(config: RunConfig, encoder: Encoder, resuming: bool) -> OpenData:
    """The run's data; a resumed run's in the order that it began with."""
    folder = Path(config.output_dir)
    report = folder / BAD_RECORDS
    met = read_report(report) if resuming else []
    data = open_data(config.data.drawn(), encoder, config.seed, report=report, progress=True)
    # The audit wrote the report anew.
    add_to_report(report, met)
    if resuming:
        return order.hold(folder, data, encoder)
    order.note(folder, data)
    return data


def _on_rank_0_first(action):
    """What ``action`` returns on rank 0, on every rank; its ValueError is raised on all of them.

    So the data is read and checked once, not by every rank. What it opened is found by its path on
    the others: folders are shared between machines, and a rank that lacks one stops all of them.
    """
    if not dist.is_initialized():
        return action()
    outcome, error, lacking, sent = None, None, None, [b""]
    if dist.get_rank() == 0:
        try:
            outcome = action()
        except (ValueError, OSError) as problem:
            error = problem
        sent = [pickle.dumps((outcome, error))]
    # As bytes, so that a rank that can't open what it is sent still tells the others.
    dist.broadcast_object_list(sent, src=0)
    if dist.get_rank() != 0:
        try:
            outcome, error = pickle.loads(sent[0])
        except OSError as problem:
            lacking = f"rank {dist.get_rank()}: {problem}"
    everywhere: list = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, lacking)
    if problems := [one for one in everywhere if one]:
        raise ValueError(
            f"{problems[0]}; every machine needs the same folders at the same paths, "
            "data.cache_dir among them: give one that they share."
        )
    if error is not None:
        raise error
    return outcome
