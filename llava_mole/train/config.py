"""What a training run may be told: one typed tree, read from YAML by ``llava_mole.config``.

Names are HF's (``TrainingArguments``), PEFT's (``LoraConfig``) and LLaVA's
(``mm_projector_lr``) wherever they have one, and every value has one reader.
"""

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from llava_mole.data.config import DataConfig
from llava_mole.model.config import ModelConfig


@dataclass
class AdapterConfig:
    """What is added to the frozen language model in the finetuning stage.

    Attributes:
        type: ``mole`` (experts on the FFN, plain LoRA on attention), ``lora`` (plain LoRA on
            the very same linears: the baseline) or ``none`` (projector only).
        r: rank of every LoRA and of every expert.
        lora_alpha: α; a LoRA is scaled by α/r.
        lora_dropout: probability of zeroing an input feature of a LoRA.
        rank_pattern: other ranks for some linears (``mole``: for some FFNs), in PEFT's notation:
            the end of a module's name as a regular expression, to its rank.
        alpha_pattern: other α for some of them, in the same notation.
        target_modules: linears that get a LoRA, in PEFT's notation; null finds the FFNs and the
            attention linears of the language model and leaves the vision tower alone.
        init_from: a run (or one of its ``checkpoint-N``) whose adapter and projector training goes
            on from, such as a stage 1 that trained both; null starts a new adapter.
        num_experts: K, experts per FFN (``mole`` only, as all that follows).
        routing: ``top1`` (Eq. 3) or ``dense`` (softmax-weighted sum, Table 5).
        gate_scaling: what multiplies the chosen expert's output: ``none``, ``prob`` or
            ``straight_through``.
        balance_norm: how Eq. 7-8 are normalised: ``paper``, ``switch`` or ``authors``.
        balance_scope: over which tokens they are taken: ``sequence``, ``micro_batch`` or
            ``global_batch``.
        balance_coef: weight of the balance loss (the paper: 1e-2).
        router_bias: whether the router has a bias.
        route_by_image: routers read a sequence's image instead of each token, and send all of it
            to one expert; needs another ``balance_scope`` than ``sequence``, or no balance loss.
        dispatch: how experts are computed: ``auto``, ``fused``, ``loop``, ``masked``, ``grouped``.
    """

    type: Literal["mole", "lora", "none"] = "mole"
    r: int = 32
    lora_alpha: int = 64
    lora_dropout: float = 0.05
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, int] = field(default_factory=dict)
    target_modules: list[str] | str | None = None
    init_from: str | None = None
    num_experts: int = 3
    routing: Literal["top1", "dense"] = "top1"
    gate_scaling: Literal["none", "prob", "straight_through"] = "none"
    balance_norm: Literal["paper", "switch", "authors"] = "switch"
    balance_scope: Literal["sequence", "micro_batch", "global_batch"] = "sequence"
    balance_coef: float = 1e-2
    router_bias: bool = False
    route_by_image: bool = False
    dispatch: Literal["auto", "fused", "loop", "masked", "grouped"] = "auto"


@dataclass
class TrainConfig:
    """Optimisation, saving and logging.

    Attributes:
        learning_rate: peak rate of LoRA and experts (and of whatever has no rate of its own).
        mm_projector_lr: peak rate of the projector; null means ``learning_rate``.
        freeze_mm_mlp_adapter: leave the projector as stage 1 made it, as LLaVA's flag of this name
            does; it is saved with the adapter all the same, so that a run is whole.
        router_lr: peak rate of the routers; null means ``learning_rate``.
        router_domain_coef: weight of a loss that teaches the routers of a MoLE the domain
            (``data.domains``) of the sample they look at; 0 leaves it out, as the paper does. Each
            domain then has experts of its own, see `llava_mole.mole.domain_loss`; set
            ``adapter.balance_coef`` to 0 with it, since it asks the opposite.
        min_lr_rate: the cosine ends at this share of each peak rate.
        warmup_steps: optimizer steps of linear warm-up.
        weight_decay: AdamW's, on matrices only (never on biases and norms).
        adam_beta1: AdamW's β1.
        adam_beta2: AdamW's β2.
        adam_epsilon: AdamW's ε.
        optim: optimizer by HF's name.
        max_grad_norm: global norm to clip gradients to; 0 turns clipping off, under DeepSpeed too.
        num_train_epochs: passes over the mixture.
        max_steps: optimizer steps; -1 leaves it to ``num_train_epochs``.
        global_batch_size: samples per optimizer step over all ranks. Gradient accumulation
            follows from it, the number of ranks and ``per_device_train_batch_size``.
        per_device_train_batch_size: samples per forward on one device. Under ``data.packing`` a
            forward takes one packed row instead, so there this counts for held-out sets only.
        gradient_accumulation_steps: only where ``global_batch_size`` is null, which then is the
            product of this, ``per_device_train_batch_size`` and the number of ranks.
        bf16: bfloat16 compute; needs hardware that is fast at it.
        tf32: TF32 matrix products; null leaves torch's setting.
        gradient_checkpointing: recompute activations in backward.
        gradient_checkpointing_every: with it, only every so many-th decoder layer does so, where
            memory is enough to keep the others' activations; ``--dry-run`` shows both.
        use_liger_kernel: Liger's fused norms and rotary embeddings (CUDA; ``liger-kernel``).
        use_cpu: train on the CPU although a GPU is there.
        deepspeed: path of a DeepSpeed JSON, e.g. ``configs/deepspeed/zero2.json``.
        ddp_timeout: seconds a collective may take; rank 0 checks all records while others wait.
        logging_steps: optimizer steps between log lines.
        save_steps: optimizer steps between checkpoints; 0 keeps only the one at the end.
        save_total_limit: checkpoints kept, newest first; null keeps all.
        eval_steps: optimizer steps between evaluations; 0 turns them off.
        report_to: ``wandb``, ``tensorboard``; ``metrics.jsonl`` is written in any case.
        run_name: name shown by the loggers; null means the output folder's.
        disable_tqdm: no progress bar.
    """

    learning_rate: float = 2e-5
    mm_projector_lr: float | None = None
    freeze_mm_mlp_adapter: bool = False
    router_lr: float | None = None
    router_domain_coef: float = 0.0
    min_lr_rate: float = 0.1
    warmup_steps: int = 0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    optim: str = "adamw_torch"
    max_grad_norm: float = 1.0
    num_train_epochs: float = 1.0
    max_steps: int = -1
    global_batch_size: int | None = None
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int | None = None
    bf16: bool = False
    tf32: bool | None = None
    gradient_checkpointing: bool = False
    gradient_checkpointing_every: int = 1
    use_liger_kernel: bool = False
    use_cpu: bool = False
    deepspeed: str | None = None
    ddp_timeout: int = 7200
    logging_steps: int = 10
    save_steps: int = 500
    save_total_limit: int | None = 2
    eval_steps: int = 0
    report_to: list[Literal["wandb", "tensorboard"]] = field(default_factory=list)
    run_name: str | None = None
    disable_tqdm: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for values no run can have."""
        for key in ("learning_rate", "mm_projector_lr", "router_lr"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise ValueError(f"train.{key} is {value}; it must be > 0.")
        if not 0 <= self.min_lr_rate <= 1:
            raise ValueError(f"train.min_lr_rate is {self.min_lr_rate}; it must lie in [0, 1].")
        for key in (
            "per_device_train_batch_size",
            "logging_steps",
            "global_batch_size",
            "gradient_checkpointing_every",
        ):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"train.{key} is {value}; it must be >= 1.")
        for key in (
            "max_grad_norm",
            "warmup_steps",
            "save_steps",
            "eval_steps",
            "router_domain_coef",
        ):
            if getattr(self, key) < 0:
                raise ValueError(f"train.{key} is {getattr(self, key)}; it must be >= 0.")
        if self.global_batch_size is not None and self.gradient_accumulation_steps is not None:
            raise ValueError(
                "train.global_batch_size and train.gradient_accumulation_steps are both given; "
                "keep global_batch_size, accumulation follows from it."
            )

    def samples_per_step(self, world_size: int, packing: bool = False) -> int:
        """N, the samples of an optimizer step over ``world_size`` ranks.

        Args:
            world_size: ranks.
            packing: whether rows are packed, so that any number of samples is a micro-batch.

        Raises:
            ValueError: ``global_batch_size`` can't be dealt evenly.
        """
        size = self.per_device_train_batch_size
        if self.global_batch_size is None:
            return world_size * size * (self.gradient_accumulation_steps or 1)
        if packing and self.global_batch_size % world_size:
            raise ValueError(
                f"train.global_batch_size {self.global_batch_size} is no multiple of {world_size} "
                "ranks; change the number of ranks."
            )
        if not packing and self.global_batch_size % (world_size * size):
            raise ValueError(
                f"train.global_batch_size {self.global_batch_size} is no multiple of {world_size} "
                f"ranks x train.per_device_train_batch_size {size} = {world_size * size}; change "
                "the per-device size or the number of ranks."
            )
        return self.global_batch_size


@dataclass
class Deviation:
    """A value that differs from the paper's, or that the paper does not give, and why.

    Attributes:
        key: dotted key in this config, e.g. ``train.learning_rate``.
        paper: what the paper prints; null where it is silent.
        reason: why this config does otherwise.
    """

    key: str
    paper: str | None
    reason: str


@dataclass
class PublishedSize:
    """How large a data set is said to be: what a dry run counts with where the file is absent.

    Attributes:
        samples: the published number.
        source: who says so.
    """

    samples: int
    source: str


@dataclass
class RunConfig:
    """One training run, whole.

    Attributes:
        model: what is built or loaded.
        data: the weighted mixture.
        stage: ``pretrain`` (projector only) or ``finetune`` (projector and adapter).
        adapter: what finetuning adds to the language model.
        train: optimisation, saving, logging.
        output_dir: the run directory.
        seed: of data order, adapter initialisation and dropout.
        deviations: where this config differs from the paper (printed by ``--dry-run``).
        published_sizes: by data set name, for dry runs without the data.
    """

    model: ModelConfig
    data: DataConfig
    stage: Literal["pretrain", "finetune"]
    output_dir: str
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 42
    deviations: list[Deviation] = field(default_factory=list)
    published_sizes: dict[str, PublishedSize] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a seed that no generator takes, or parts that can't go together."""
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; it must lie in [0, {2**32 - 1}].")
        if self.train.freeze_mm_mlp_adapter:
            self._refuse_nothing_to_train()
        if self.train.router_domain_coef and self.adapter.type != "mole":
            raise ValueError(
                f"train.router_domain_coef is {self.train.router_domain_coef}, and adapter.type "
                f"{self.adapter.type!r} has no router; set it to 0, or adapter.type to mole."
            )
        if self.adapter.route_by_image and self.adapter.type != "mole":
            raise ValueError(
                f"adapter.route_by_image is true, and adapter.type {self.adapter.type!r} has no "
                "router; set it to false, or adapter.type to mole."
            )

    def _refuse_nothing_to_train(self) -> None:
        if self.stage == "pretrain" or self.adapter.type == "none":
            raise ValueError(
                f"train.freeze_mm_mlp_adapter is true, and stage {self.stage!r} with adapter.type "
                f"{self.adapter.type!r} trains nothing but the projector; set it to false."
            )
        if self.train.mm_projector_lr is not None:
            raise ValueError(
                f"train.mm_projector_lr is {self.train.mm_projector_lr} and "
                "train.freeze_mm_mlp_adapter true, so that no rate applies; remove one of them."
            )

    def get(self, key: str) -> Any:
        """The value at a dotted ``key``; raises ValueError where there is none."""
        value: Any = self
        for part in key.split("."):
            if not hasattr(value, part):
                raise ValueError(f"config has no key {key!r}; remove it from 'deviations'.")
            value = getattr(value, part)
        return value


def world_size() -> int:
    """Ranks of this launch, as torchrun, deepspeed and accelerate tell them (else 1)."""
    return int(os.environ.get("WORLD_SIZE", "1"))
