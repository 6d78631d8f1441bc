"""LLaVA-MoLE: LLaVA-1.5 training with a sparse mixture of LoRA experts in every FFN."""

from llava_mole import _torchvision

_torchvision.ensure_importable()
