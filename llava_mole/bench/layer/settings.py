"""What the layer benchmark measures, and what is wanted of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llava_mole.bench.layer.arms import DENSE, MASK_LOOP, PEFT

PARTS = ("saved", "time", "decode")
DTYPES = ("float32", "bfloat16")
SMALL = ((576, 1536), (1024, 2816))  # SmolLM2-135M's and the next size of its kind
LARGE = (4096, 11008)  # Vicuna-7B's
_RANK = 32

# Arm of MoLE's denominator -> number of experts -> largest ratio.
_TIME_BARS = {
    PEFT: {3: 1.00, 8: 1.03, 16: 1.05},
    MASK_LOOP: {3: 0.95, 8: 0.85},
    DENSE: {3: 0.80, 8: 0.55},
}
_CUDA_BAR = 0.95
_DECODE_BAR = 1.00
_SAVED_BARS = {PEFT: {3: 0.55}, DENSE: {2: 0.25, 3: 0.20}}
SAVED_GROWTH_BAR = 1.01  # from 2 to 16 experts


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        only: of `PARTS`.
        device: ``cpu`` (one thread) or ``cuda``, of times; bytes are counted on the CPU.
        dtype: of base, experts and tokens, for times.
        shapes: widths D and FFN widths F, for times.
        tokens: numbers of tokens T of a forward and backward pass.
        experts: numbers of experts K, an arm of each kind of mixture; MoLE has K=1 too.
        r: rank of LoRA and of every expert.
        rounds: how often every arm is timed, after one round to warm up.
        saved_shape: D and F, for saved bytes; in bfloat16.
        saved_tokens: T, for saved bytes.
        saved_experts: numbers of experts, for saved bytes.
    """

    only: Sequence[str] = PARTS
    device: str = "cpu"
    dtype: str = "float32"
    shapes: Sequence[tuple[int, int]] = SMALL
    tokens: Sequence[int] = (2048,)
    experts: Sequence[int] = (3, 8, 16)
    r: int = _RANK
    rounds: int = 11
    saved_shape: tuple[int, int] = LARGE
    saved_tokens: int = 128
    saved_experts: Sequence[int] = (2, 3, 8, 16)

    def __post_init__(self) -> None:
        """Raises ValueError for settings that cannot be measured."""
        unknown = [part for part in self.only if part not in PARTS]
        if unknown or not self.only:
            raise ValueError(f"--only {','.join(unknown)}: choose from {', '.join(PARTS)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype {self.dtype}: choose from {', '.join(DTYPES)}")
        counts = {
            "--tokens": self.tokens,
            "--experts": self.experts,
            "--rank": [self.r],
            "--saved-tokens": [self.saved_tokens],
            "--shapes": [size for shape in self.shapes for size in shape],
            "--saved-shape": self.saved_shape,
        }
        for flag, values in counts.items():
            if not values or min(values) < 1:
                raise ValueError(f"{flag}: give numbers of at least 1")
        if self.rounds < 3:
            raise ValueError(f"--rounds {self.rounds}: quartiles need at least 3")

    @classmethod
    def of(cls, device: str, **given: Any) -> "Settings":
        """The defaults of a device: 7B widths in bfloat16 on a GPU. None leaves a default."""
        own = {}
        if device.startswith("cuda"):
            own = {"dtype": "bfloat16", "shapes": (LARGE,), "tokens": (4096,)}
        given = {name: value for name, value in given.items() if value is not None}
        return cls(**{"device": device, **own, **given})

    def time_bar(self, shape: tuple[int, int], tokens: int, bar: str, K: int) -> float | None:
        """Largest ratio wanted of MoLE's time with K experts over that of an arm of a kind.

        Only what the protocol measures has one: rank 32; on the CPU the small shapes in float32 at
        2,048 tokens, on a GPU the large one in bfloat16 at 4,096.
        """
        what = (self.r, self.dtype, tokens)
        if self.device.startswith("cuda"):
            protocol = what == (_RANK, "bfloat16", 4096) and shape == LARGE
            return _CUDA_BAR if protocol and bar == PEFT else None
        if what != (_RANK, "float32", 2048) or shape not in SMALL:
            return None
        return _TIME_BARS.get(bar, {}).get(K)

    def decode_bar(self, shape: tuple[int, int]) -> float | None:
        """Largest ratio wanted of MoLE's decode step over PEFT's, on the CPU in float32."""
        protocol = (self.r, self.dtype, self.device) == (_RANK, "float32", "cpu")
        return _DECODE_BAR if protocol and shape in SMALL else None

    def saved_bar(self, bar: str, K: int) -> float | None:
        """Largest ratio wanted of MoLE's saved bytes with K experts over those of an arm."""
        return _SAVED_BARS.get(bar, {}).get(K) if self.saved_is_protocol else None

    @property
    def saved_is_protocol(self) -> bool:
        """Whether saved bytes are counted at the widths and the rank that the bars are for."""
        return (self.saved_shape, self.r) == (LARGE, _RANK)
