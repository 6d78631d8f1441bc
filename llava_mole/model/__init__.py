"""The model: open_clip tower, processor and templates, build, load, freeze.

Names are imported when they are asked for: a config or a chat template needs no model library.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava_mole.model.build import build_model
    from llava_mole.model.config import ModelConfig
    from llava_mole.model.load import load_run
    from llava_mole.model.processor import build_processor, load_processor
    from llava_mole.model.projector import load_projector, save_projector
    from llava_mole.model.templates import conversation, template_for

_MODULES = {
    "ModelConfig": "config",
    "build_model": "build",
    "build_processor": "processor",
    "conversation": "templates",
    "load_processor": "processor",
    "load_projector": "projector",
    "load_run": "load",
    "save_projector": "projector",
    "template_for": "templates",
}

__all__ = [
    "ModelConfig",
    "build_model",
    "build_processor",
    "conversation",
    "load_processor",
    "load_projector",
    "load_run",
    "save_projector",
    "template_for",
]


def __getattr__(name: str):
    """Imports the module that ``name`` is defined in."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
