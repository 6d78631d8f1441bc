"""Liger's fused norms and rotary embeddings for a LLaVA's decoder, on CUDA."""

from importlib.util import find_spec

import torch
from transformers import PreTrainedModel

# MoLE's FFN has a SwiGLU of its own, and logits are computed at supervised positions alone.
_PARTS = {
    "rope": True,
    "rms_norm": True,
    "swiglu": False,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}


def apply_liger_kernel(model: PreTrainedModel) -> None:
    """Replaces the decoder's RMSNorms, and rotary embeddings of its kind everywhere in the process.

    transformers' own ``use_liger_kernel`` would hand a LLaVA's decoder Liger's FFN too, on which
    MoLE finds no place.

    Args:
        model: a LLaVA, before an adapter is attached or after.

    Raises:
        ValueError: no GPU, Liger is not installed, or it does not know the decoder; with the
            remedy.
    """
    if not torch.cuda.is_available():
        raise ValueError("train.use_liger_kernel: its kernels need a GPU; set it to false.")
    if find_spec("liger_kernel") is None:
        raise ValueError(
            "train.use_liger_kernel: liger-kernel is not installed; pip install liger-kernel, or "
            "set it to false."
        )
    from liger_kernel.transformers.monkey_patch import (
        MODEL_TYPE_TO_APPLY_LIGER_FN,
        _apply_liger_kernel_to_instance,
    )

    decoder = model.get_decoder()
    kind = decoder.config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ValueError(
            f"train.use_liger_kernel: Liger has no kernels for a {kind!r} decoder; set it to false."
        )
    _apply_liger_kernel_to_instance(decoder, **_PARTS)
