"""One FFN with MoLE against plain LoRA and other mixtures: saved bytes, training and decode time.

Arms in one process on the same base weights, inputs and expert weights: the frozen FFN, PEFT's
``lora.Linear`` (the bar), MoLE as ``get_peft_model`` makes it, and mixtures of LoRA experts as they
are usually written. Routed arms include router and balance loss. Before anything is timed, every
arm is compared with a slow float64 oracle, and an arm that differs is refused.
"""

from llava_mole.bench.figures import Figure
from llava_mole.bench.layer.memory import saved_figures
from llava_mole.bench.layer.settings import Settings
from llava_mole.bench.layer.speed import decode_figures, time_figures

__all__ = ["Settings", "run"]


def run(settings: Settings) -> list[Figure]:
    """Measures the chosen parts.

    Raises:
        RuntimeError: an arm computes something else than it should.
    """
    import torch

    if settings.device == "cpu":
        torch.set_num_threads(1)
    parts = {"saved": saved_figures, "time": time_figures, "decode": decode_figures}
    return [figure for part in parts if part in settings.only for figure in parts[part](settings)]
