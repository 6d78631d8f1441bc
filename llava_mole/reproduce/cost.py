"""What a run of the paper's scale costs: GPU-hours, estimated from the paper's own.

Finetuning a LLaVA-MoLE on all three domains takes the paper 16 hours on 64 A100s (Sec. 4.1): 1,024
A100-hours for its 3,384,755 samples, 1.09 s of one A100 a sample. Assumed here: time goes with the
samples and with the floating-point operations of a token, 4 for each weight of the frozen language
model (forward, and backward to the activations) and 6 for each weight of the adapter that the token
meets; and an H200 is used to the same share of its peak as their A100s were. It is an estimate:
with 800 tokens a sample theirs is some 6 % of an A100's peak, so that packed rows and large batches
may well do better.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from llava_mole.model.freeze import count_parameters
from llava_mole.train.config import AdapterConfig

PAPER_HOURS = 16 * 64
# 1.6M + 665k general, 1.1M document, 19,755 biomedicine.
PAPER_SAMPLES = 3_384_755
# Dense bfloat16 FLOP/s of the data sheets.
PEAK = {"A100": 312e12, "H200": 989e12}
# LLaVA-MoLE[1,1,1] at r = 32, whose hours the paper gives: the adapter's weights that a token
# meets, attention's, one expert's and the routers'.
PAPER_ADAPTER = 33_554_432 + 139_198_464 // 3 + 393_216
ASSUMPTION = (
    "GPU-hours are an estimate: the paper's 16 h x 64 A100s for 3,384,755 samples, in proportion "
    "to samples and operations a token; an H200 at the same share of its peak (989 / 312). Their "
    "share is low, some 6 % of peak at 800 tokens a sample: packed rows may take a fraction of it."
)


@dataclass(frozen=True)
class Weights:
    """The weights of a model that a token meets.

    Attributes:
        frozen: of the language model.
        adapter: of the adapter: one expert's where routing is sparse, all experts' where it is
            dense.
    """

    frozen: int
    adapter: int

    @property
    def operations(self) -> int:
        """Floating-point operations a token, forward and backward."""
        return 4 * self.frozen + 6 * self.adapter


def weights_met(model: nn.Module, adapter: AdapterConfig) -> Weights:
    """Counts them on a model as it is trained, which may be on meta."""
    counts = count_parameters(model)
    sizes: Mapping[str, int] = {part: count.total for part, count in counts.items()}
    experts = sizes.get("experts", 0)
    if adapter.type == "mole" and adapter.routing == "top1":
        experts //= adapter.num_experts
    met = sizes.get("lora", 0) + experts + sizes.get("router", 0)
    return Weights(sizes["language_model"], met)


def gpu_hours(samples: int, weights: Weights) -> dict[str, float]:
    """Hours of one GPU that ``samples`` take, by kind of GPU."""
    paper = Weights(weights.frozen, PAPER_ADAPTER)
    ratio = weights.operations / paper.operations
    hours = PAPER_HOURS * samples / PAPER_SAMPLES * ratio
    return {kind: hours * PEAK["A100"] / peak for kind, peak in PEAK.items()}
