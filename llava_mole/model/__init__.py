"""The model: open_clip tower, processor and templates, build, load, freeze.

Importing it registers the open_clip tower with transformers' ``AutoConfig`` and ``AutoModel``.
"""

from llava_mole.model.build import build_model
from llava_mole.model.config import ModelConfig
from llava_mole.model.load import load_run
from llava_mole.model.processor import build_processor, load_processor
from llava_mole.model.projector import load_projector, save_projector
from llava_mole.model.templates import conversation, template_for

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
