"""What trains in each stage, said explicitly, and the table of it that is logged."""

from collections import Counter
from typing import NamedTuple

from torch import nn

STAGES = ("pretrain", "finetune")
PARTS = ("vision_tower", "multi_modal_projector", "language_model", "lora", "experts", "router")


class Count(NamedTuple):
    """Parameters of a part."""

    trainable: int
    total: int


def freeze(model: nn.Module, stage: str, freeze_mm_mlp_adapter: bool = False) -> dict[str, Count]:
    """Sets ``requires_grad`` of every parameter for a stage; call it after the adapter is attached.

    ``pretrain`` trains the projector alone. ``finetune`` trains the projector and every adapter
    (LoRA, experts, routers). Vision tower and language model are frozen in both, as in LLaVA-MoLE,
    Sec. 4.1 and 4.2.

    Args:
        model: a LLaVA, wrapped by PEFT or not.
        stage: one of `STAGES`.
        freeze_mm_mlp_adapter: leave the projector frozen too, as LLaVA's flag of this name does.

    Returns:
        `count_parameters` afterwards.

    Raises:
        ValueError: an unknown stage, or one in which nothing would train.
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}; choose one of {', '.join(STAGES)}.")
    train = set() if freeze_mm_mlp_adapter else {"multi_modal_projector"}
    if stage == "finetune":
        train |= {"lora", "experts", "router"}
    for name, parameter in model.named_parameters():
        # PEFT keeps an untrained copy of a module in modules_to_save, for disable_adapter.
        kept = ".original_module." in name
        parameter.requires_grad_(part_of(name) in train and not kept)
    # A frozen tower goes to eval mode for good (see OpenClipVisionModel.train).
    for name, module in model.named_modules():
        if name.endswith("vision_tower"):
            module.train(module.training)
    counts = count_parameters(model)
    if not any(count.trainable for count in counts.values()):
        raise ValueError(
            f"stage {stage!r}: nothing to train; the model has no projector, "
            "or it is frozen and no adapter is attached."
        )
    return counts


def part_of(name: str) -> str:
    """The part of the model, one of `PARTS`, that a parameter's name belongs to."""
    if ".lora_" in name:
        return "lora"
    if ".mole_" in name or ".router" in name:
        return "router" if "router" in name else "experts"
    for part in ("vision_tower", "multi_modal_projector"):
        if part in name:
            return part
    return "language_model"


def count_parameters(model: nn.Module) -> dict[str, Count]:
    """Trainable and all parameters by part; parts that the model doesn't have are left out.

    Tied weights count once. The frozen copy that PEFT keeps of a trained projector is left out;
    4-bit weights count their values, not their bytes.
    """
    trainable: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if ".original_module." in name:
            continue
        size = parameter.numel()
        if type(parameter).__name__ == "Params4bit" and parameter.quant_state is not None:
            size = parameter.quant_state.shape.numel()
        part = part_of(name)
        total[part] += size
        trainable[part] += size if parameter.requires_grad else 0
    return {part: Count(trainable[part], total[part]) for part in PARTS if part in total}


def table(counts: dict[str, Count]) -> str:
    """The counts as lines of text, with their sum."""
    total = Count(sum(c.trainable for c in counts.values()), sum(c.total for c in counts.values()))
    rows = [*counts.items(), ("all", total)]
    lines = [f"{'part':<22} {'trainable':>15} {'parameters':>15}"]
    lines += [f"{part:<22} {c.trainable:>15,} {c.total:>15,}" for part, c in rows]
    return "\n".join(lines)
