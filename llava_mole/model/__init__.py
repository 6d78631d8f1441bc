"""The model: open_clip tower, processor and templates, build, load, freeze.

Importing it registers the open_clip tower with transformers' ``AutoConfig`` and ``AutoModel``.
"""

from llava_mole.model import open_clip_tower
from llava_mole.model.config import ModelConfig

__all__ = ["ModelConfig", "open_clip_tower"]
