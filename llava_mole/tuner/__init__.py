"""MoLE as a PEFT method: importing this package registers it.

``get_peft_model(model, MoleConfig(num_experts=3))`` works on any transformers decoder or VLM, and
saving, loading, disabling and switching adapters are PEFT's own.
"""

from peft.utils import PeftType

# PEFT looks methods up in an enum that has no way to add to it; this is what EnumMeta does itself.
if "MOLE" not in PeftType.__members__:
    _member = str.__new__(PeftType, "MOLE")
    _member._name_ = _member._value_ = "MOLE"
    PeftType._member_names_.append("MOLE")
    PeftType._member_map_["MOLE"] = _member
    PeftType._value2member_map_["MOLE"] = _member
    type.__setattr__(PeftType, "MOLE", _member)

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method

from llava_mole.tuner.config import MoleConfig
from llava_mole.tuner.image_cache import select_images
from llava_mole.tuner.layer import MoleLayer
from llava_mole.tuner.model import MoleModel
from llava_mole.tuner.routing import (
    attention_targets,
    balance_loss_of,
    ffn_targets,
    load_stats,
    lora_targets,
    reset_balance_counts,
    routing_of,
)
from llava_mole.tuner.state import Routing

if PeftType.MOLE not in PEFT_TYPE_TO_TUNER_MAPPING:
    register_peft_method(name="mole", config_cls=MoleConfig, model_cls=MoleModel, prefix="mole_")

__all__ = [
    "MoleConfig",
    "MoleLayer",
    "MoleModel",
    "Routing",
    "attention_targets",
    "balance_loss_of",
    "ffn_targets",
    "load_stats",
    "lora_targets",
    "reset_balance_counts",
    "routing_of",
    "select_images",
]
