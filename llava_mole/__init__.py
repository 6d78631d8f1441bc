"""LLaVA-MoLE: LLaVA-1.5 training with a sparse mixture of LoRA experts in every FFN.

Importing the package registers MoLE with PEFT, so that ``PeftModel.from_pretrained`` knows it.
"""

from typing import TYPE_CHECKING

from llava_mole import _imports

if TYPE_CHECKING:
    from llava_mole.tuner import MoleConfig

__all__ = ["MoleConfig"]

_imports.wait_for_peft_and_torchvision()


def __getattr__(name: str):
    """Imports `MoleConfig`, and with it torch and PEFT, when it is first asked for."""
    if name == "MoleConfig":
        from llava_mole.tuner import MoleConfig

        return MoleConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
