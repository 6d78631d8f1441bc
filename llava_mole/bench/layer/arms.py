"""The arms by name."""

from collections.abc import Callable, Sequence
from functools import partial

from llava_mole.bench.layer.arm import Arm
from llava_mole.bench.layer.others import Dense, MaskLoop, MixLora
from llava_mole.bench.layer.product import Frozen, Lora, Mole
from llava_mole.bench.layer.weights import Weights

FROZEN = "frozen"
PEFT = "PEFT"  # the bar: no dropout, adapters in the base's dtype
PEFT_DEFAULT = "PEFT default"  # float32 adapters, and the dropout that is usual with them
MOLE, MASK_LOOP, MIX_LORA, DENSE, DENSE_RANK = (
    "MoLE",
    "mask loop",
    "MixLoRA-style",
    "dense",
    "dense as rank",
)
KINDS: dict[str, Callable[[Weights], Arm]] = {
    MOLE: Mole,
    MASK_LOOP: MaskLoop,
    MIX_LORA: MixLora,
    DENSE: Dense,
    DENSE_RANK: partial(Mole, routing="dense"),
}
SPARSE = (MOLE, MASK_LOOP, MIX_LORA)
_DROPOUT = 0.05


def named(kind: str, num_experts: int) -> str:
    """The name of a mixture's arm."""
    return f"{kind} K={num_experts}"


def makers(weights: Weights, experts: Sequence[int]) -> dict[str, Callable[[], Arm]]:
    """All arms of one FFN, none of them made yet.

    Args:
        weights: of the FFN, with as many experts as the largest arm needs.
        experts: numbers of experts, an arm of every kind each.
    """
    found: dict[str, Callable[[], Arm]] = {
        FROZEN: partial(Frozen, weights),
        PEFT: partial(Lora, weights),
        PEFT_DEFAULT: partial(Lora, weights, dropout=_DROPOUT, fp32=True),
        named(MOLE, 1): partial(Mole, weights.first(1)),
    }
    for kind, make in KINDS.items():
        found |= {named(kind, k): partial(make, weights.first(k)) for k in experts}
    return found
