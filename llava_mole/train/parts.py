"""The learning rate of each trainable part: projector, LoRA, experts, routers."""

from collections.abc import Collection, Iterator

from torch import nn

from llava_mole.model.freeze import PARTS, part_of
from llava_mole.train.config import TrainConfig


def peak_rate(part: str, train: TrainConfig) -> float:
    """The learning rate that ``part`` (of ``llava_mole.model.freeze``) reaches after warm-up."""
    own = {"multi_modal_projector": train.mm_projector_lr, "router": train.router_lr}.get(part)
    return train.learning_rate if own is None else own


def parameter_groups(
    model: nn.Module, train: TrainConfig, decayed: Collection[str]
) -> Iterator[dict]:
    """One AdamW group per part and decay, in a fixed order; ``name`` is the part's.

    Args:
        model: its trainable parameters are grouped.
        train: rates and decay.
        decayed: names of the parameters that weight decay applies to (no biases, no norms).
    """
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    for part in PARTS:
        for decays in (True, False):
            params = [p for n, p in trainable if part_of(n) == part and (n in decayed) == decays]
            if params:
                yield {
                    "name": part,
                    "params": params,
                    "lr": peak_rate(part, train),
                    "weight_decay": train.weight_decay if decays else 0.0,
                }
