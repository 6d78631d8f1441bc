"""Makes ``import torchvision`` work beside a CPU build of torch.

The package index has only CUDA builds of torchvision. Beside a CPU-only torch their C++ library
cannot load, and torchvision's Python code then dies at import because it registers fake kernels for
operators that were never defined. open_clip, timm and transformers all import torchvision, none of
them needs its C++ operators here. On that very error the missing schemas are declared (without
kernels, so calling one still fails clearly) and torchvision is executed again.
"""

import sys
from collections.abc import Callable

_MISSING = "torchvision::nms does not exist"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library = None  # torch forgets the schemas when the Library object is collected


def execute(torchvision: Callable[[], None]) -> None:
    """Runs ``torchvision``, its package's code, declaring what its C++ library could not define."""
    global _library
    try:
        torchvision()
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise
        for name in [name for name in sys.modules if name.startswith("torchvision.")]:
            del sys.modules[name]
        import torch

        _library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            _library.define(operator + _SCHEMA)
        torchvision()
