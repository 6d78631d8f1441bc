"""LLaVA-MoLE: LLaVA-1.5 training with a sparse mixture of LoRA experts in every FFN.

Importing the package registers MoLE with PEFT, so that ``PeftModel.from_pretrained`` knows it.
"""

from llava_mole import _torchvision

_torchvision.ensure_importable()

from llava_mole.tuner import MoleConfig  # noqa: E402

__all__ = ["MoleConfig"]
