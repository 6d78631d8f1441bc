"""From a `RunConfig` to HF's ``TrainingArguments``: the only place that knows both."""

import json
import logging
import os
from pathlib import Path

from transformers import TrainingArguments

from llava_mole.train.config import RunConfig, world_size

logger = logging.getLogger(__name__)


def training_arguments(config: RunConfig) -> TrainingArguments:
    """HF's arguments for ``config``. Creating them starts the process group of a multi-rank run.

    What `MoleTrainer` does itself is turned off here: HF's loss normalisation, its NaN filter
    (which would replace a NaN by an average), its pruning of batch keys, and checkpoint rotation.
    """
    train = config.train
    if train.deepspeed is not None and "RANK" not in os.environ:
        raise ValueError(
            "train.deepspeed needs a launcher, even for one rank: start with bash scripts/*.sh or "
            "torchrun --nproc-per-node 1 -m llava_mole.cli.main train ..., or set "
            "train.deepspeed=null."
        )
    arguments = TrainingArguments(
        output_dir=config.output_dir,
        seed=config.seed,
        learning_rate=train.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        # A rate, not `min_lr`: DeepSpeed's optimizer has no `defaults` to divide by, and parts
        # with their own peak must each end at the same share of it.
        lr_scheduler_kwargs={"min_lr_rate": train.min_lr_rate},
        warmup_steps=train.warmup_steps,
        weight_decay=train.weight_decay,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=train.adam_epsilon,
        optim=train.optim,
        max_grad_norm=train.max_grad_norm,
        num_train_epochs=train.num_train_epochs,
        max_steps=train.max_steps,
        # To HF a batch is a rank's whole share of an optimizer step: how many micro-batches that
        # makes may differ from step to step, and `MoleTrainer` accumulates over them itself.
        per_device_train_batch_size=(
            train.samples_per_step(world_size(), config.data.packing) // world_size()
        ),
        gradient_accumulation_steps=1,
        bf16=train.bf16,
        tf32=train.tf32,
        activation_checkpointing=train.gradient_checkpointing,
        # Reentrant checkpointing drops the graph of the balance loss: routers would not train.
        activation_checkpointing_kwargs={
            "use_reentrant": False,
            "every_n_layers": train.gradient_checkpointing_every,
        },
        use_cpu=train.use_cpu,
        deepspeed=deepspeed_settings(train.deepspeed),
        ddp_timeout=train.ddp_timeout,
        # Every trainable parameter takes part in every backward (see `zero_gradient.py`).
        ddp_find_unused_parameters=False,
        logging_steps=train.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=train.save_steps or 10**9,
        save_total_limit=None,
        report_to=list(train.report_to),
        run_name=train.run_name or Path(config.output_dir).name,
        disable_tqdm=train.disable_tqdm,
        dataloader_num_workers=config.data.num_workers,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        label_names=["targets"],
        use_cache=False,
    )
    if arguments.n_gpu > 1:
        # HF would wrap the model in DataParallel, which cuts every tensor of a batch along its
        # first dimension: images apart from their tokens.
        logger.warning(
            "%d GPUs are here and one is used: start with bash scripts/*.sh or torchrun, or set "
            "CUDA_VISIBLE_DEVICES",
            arguments.n_gpu,
        )
        arguments._n_gpu = 1
    return arguments


def deepspeed_settings(path: str | None) -> dict | None:
    """The DeepSpeed JSON at ``path``, checked for what would silently change the training.

    Raises:
        ValueError: unreadable, or it brings an optimizer, a scheduler or a clipping of its own.
    """
    if path is None:
        return None
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{path}: {error.strerror}; give a DeepSpeed JSON such as configs/deepspeed/zero2.json."
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    for key in ("optimizer", "scheduler"):
        if key in settings:
            raise ValueError(
                f"{path}: remove {key!r}: it would override the learning rates per part that the "
                "run config sets."
            )
    if settings.get("gradient_clipping") != "auto":
        raise ValueError(
            f"{path}: set 'gradient_clipping' to 'auto': without it DeepSpeed clips at its own "
            "default, not at train.max_grad_norm."
        )
    return settings
