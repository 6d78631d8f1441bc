"""What a run would do, without its weights, data or GPUs: sizes, memory, steps, data, deviations.

The model is built on the meta device, so shapes and counts are exact; memory is the sum of the
terms printed with it, of which the activations are an estimate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from llava_mole.data.mixture import Mixture, Part
from llava_mole.data.prepared.recordset import open_dataset
from llava_mole.model.build import build_model
from llava_mole.model.freeze import count_parameters, table
from llava_mole.train.adapter import attach
from llava_mole.train.arguments import deepspeed_settings
from llava_mole.train.batches import layout_of
from llava_mole.train.config import RunConfig
from llava_mole.train.parts import peak_rate

GIB = 2**30


@dataclass(frozen=True)
class Size:
    """How many samples a data set has, and how that is known.

    Attributes:
        samples: the number; null where nobody says.
        known_from: ``the file``, or who published it.
    """

    samples: int | None
    known_from: str


def plan(config: RunConfig, ranks: int) -> str:
    """The report of a dry run of ``config`` on ``ranks`` ranks.

    Raises:
        ValueError: what would keep the run from starting and can be known here.
    """
    if ranks < 1:
        raise ValueError(f"--ranks is {ranks}; it must be at least 1.")
    model = build_model(config.model, device="meta")
    base = sum(parameter.numel() for parameter in model.parameters())
    model = attach(model, config)
    counts = count_parameters(model)
    adapter = sum(
        counts[part].trainable for part in ("lora", "experts", "router") if part in counts
    )
    stage = config.stage
    if stage == "finetune":
        stage = f"{stage}, adapter {config.adapter.type}"
    lines = [f"dry run: stage {stage}, on {ranks} rank(s), into {config.output_dir}", ""]
    lines += [f"model: {base:,} parameters in all, adapter not counted", table(counts)]
    if adapter:
        lines += [f"LoRA, experts and routers together: {adapter:,}"]
    lines += ["", *memory(config, model, ranks), "", *schedule(config, ranks), ""]
    lines += deviations(config)
    return "\n".join(lines)


def memory(config: RunConfig, model: nn.Module, ranks: int) -> list[str]:
    """Bytes on each GPU, term by term, as lines of text."""
    settings = deepspeed_settings(config.train.deepspeed) or {}
    stage = settings.get("zero_optimization", {}).get("stage", 0)
    name = f"DeepSpeed ZeRO-{stage}" if settings else "no sharding"
    terms = memory_terms(config, model, ranks)
    total = sum(value for value, _ in terms)
    return [
        f"memory per GPU, {name}, {ranks} rank(s):",
        *(text for _, text in terms),
        f"  {'sum':<24}{total / GIB:>9.2f} GiB   without CUDA's context and fragmentation",
    ]


def memory_terms(config: RunConfig, model: nn.Module, ranks: int) -> list[tuple[float, str]]:
    """What takes memory on each GPU: bytes, and how they come about."""
    train = config.train
    settings = deepspeed_settings(train.deepspeed) or {}
    stage = settings.get("zero_optimization", {}).get("stage", 0)
    parameters = list(model.parameters())  # with the copy of the projector that PEFT keeps
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    frozen = sum(p.numel() for p in parameters if not p.requires_grad)
    size = parameters[0].element_size()
    # DeepSpeed trains in the compute dtype over float32 masters; without it weights are float32.
    own, master = (2 if train.bf16 else 4, 4) if settings else (4, 0)
    summed = 4 if (settings.get("data_types") or {}).get("grad_accum_dtype") == "fp32" else own
    shard = dict.fromkeys(("weights", "gradients", "optimizer"), 1)
    if stage >= 1:
        shard["optimizer"] = ranks
    if stage >= 2:
        shard["gradients"] = ranks
    if stage >= 3:
        shard["weights"] = ranks

    def term(label: str, total: int, over: int, how: str) -> tuple[float, str]:
        here = total / over
        over_text = f" / {over} ranks" if over > 1 else ""
        return here, f"  {label:<24}{here / GIB:>9.2f} GiB   {how}{over_text}"

    return [
        term("frozen weights", frozen * size, shard["weights"], f"{frozen:,} x {size} B"),
        term("trained weights", trained * own, shard["weights"], f"{trained:,} x {own} B"),
        term("gradients", trained * summed, shard["gradients"], f"{trained:,} x {summed} B"),
        term(
            "AdamW and masters",
            trained * (8 + master),
            shard["optimizer"],
            f"{trained:,} x (4 + 4{' + 4' if master else ''}) B",
        ),
        _activations(config, model),
    ]


def _activations(config: RunConfig, model: nn.Module) -> tuple[float, str]:
    """A rough upper end: full-length rows, one value kept per output of each matrix product."""
    text = model.config.text_config
    layout = layout_of(config, 1)
    tokens = layout.packing_length or layout.batch_size * config.model.model_max_length
    size = 2 if config.train.bf16 or config.model.dtype != "float32" else 4
    per_layer = 8 * text.hidden_size + 4 * text.intermediate_size
    layers = text.num_hidden_layers
    if config.train.gradient_checkpointing:
        recomputed = -(-layers // config.train.gradient_checkpointing_every)
        kept = recomputed * text.hidden_size + (layers - recomputed + 1) * per_layer
        how = f"({recomputed} x D + {layers - recomputed + 1} x (8 D + 4 F))"
    else:
        kept = layers * per_layer
        how = f"{layers} layers x (8 D + 4 F)"
    total = tokens * (kept * size + 8 * text.vocab_size)
    label = "activations (estimate)"
    how = f"{tokens:,} tokens x ({how} x {size} B + logits 8 B x {text.vocab_size:,})"
    return total, f"  {label:<24}{total / GIB:>9.2f} GiB   {how}"


def schedule(config: RunConfig, ranks: int) -> list[str]:
    """Data counts per λ, steps, warm-up and the rates of each part."""
    train = config.train
    global_batch = train.samples_per_step(ranks, config.data.packing)
    sizes, mixture = mixture_of(config)
    lines = ["data:"]
    if mixture is None:
        unknown = [name for name, size in sizes.items() if size.samples is None]
        lines += [f"  {name}: no file and no published size" for name in unknown]
        lines += ["steps: unknown until the data is there"]
        return lines
    lines += [f"  {line}" for line in mixture.table().splitlines()]
    for name, size in sizes.items():
        if size.known_from != "the file":
            lines += [f"  {name}: PUBLISHED count, its file is absent ({size.known_from})"]
    per_epoch, steps = steps_of(config, mixture, ranks)
    if steps <= train.warmup_steps:
        lines += [f"  NOTE: {train.warmup_steps} warm-up steps are all of the {steps} steps"]
    lines += [
        "",
        f"steps: {steps:,} ({per_epoch:,} an epoch), warm-up {train.warmup_steps:,}",
        f"global batch {global_batch} = {ranks} ranks x {global_batch // ranks} samples, "
        f"{layout_of(config, ranks).describe()}",
        "learning rates, peak -> end of the cosine:",
    ]
    for part in _trained_parts(config):
        peak = peak_rate(part, train)
        lines += [f"  {part:<24}{peak:.1e} -> {peak * train.min_lr_rate:.1e}"]
    return lines


def mixture_of(config: RunConfig) -> tuple[dict[str, Size], Mixture | None]:
    """Sizes of the data sets that are drawn, by name, and their mixture.

    The mixture is None where a size is not known.
    """
    domains = config.data.drawn().domains
    sizes = {d.name: data_size(config, d) for m in domains.values() for d in m.datasets}
    if any(size.samples is None for size in sizes.values()):
        return sizes, None
    parts = [
        Part(domain, d.name, sizes[d.name].samples, group.weight * d.weight, d.resample)
        for domain, group in domains.items()
        for d in group.datasets
    ]
    return sizes, Mixture(parts, config.seed)


def steps_of(config: RunConfig, mixture: Mixture, ranks: int) -> tuple[int, int]:
    """Optimizer steps of an epoch, and of the run."""
    train = config.train
    per_epoch = mixture.size(0) // train.samples_per_step(ranks, config.data.packing)
    if train.max_steps > 0:
        return per_epoch, train.max_steps
    return per_epoch, int(train.num_train_epochs * per_epoch)


def data_size(config: RunConfig, dataset) -> Size:
    """Records of a data set: as prepared if it is there, else as published."""
    if Path(dataset.path).exists():
        return Size(len(open_dataset(dataset, cache_dir=config.data.cache_dir)), "the file")
    published = config.published_sizes.get(dataset.name)
    if published is None:
        return Size(None, "")
    return Size(published.samples, published.source)


def deviations(config: RunConfig) -> list[str]:
    """The table of values that differ from the paper's, or that it does not give, and why."""
    if not config.deviations:
        return ["deviations from the paper: this config lists none"]
    rows = [("key", "paper", "here", "why")]
    rows += [
        (d.key, d.paper or "not given", str(config.get(d.key)), d.reason) for d in config.deviations
    ]
    return ["deviations from the paper:", *_columns(rows)]


def _trained_parts(config: RunConfig) -> Iterable[str]:
    if not config.train.freeze_mm_mlp_adapter:
        yield "multi_modal_projector"
    if config.stage == "finetune" and config.adapter.type != "none":
        yield "lora"
        if config.adapter.type == "mole":
            yield from ("experts", "router")


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  " + "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]
