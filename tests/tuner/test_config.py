import dataclasses

import pytest
from peft import LoraConfig, PeftConfig
from peft.utils import PeftType

from llava_mole import MoleConfig


def test_defaults():
    config = MoleConfig()
    assert isinstance(config, LoraConfig)
    assert config.peft_type is PeftType.MOLE
    assert (config.num_experts, config.r, config.lora_alpha) == (3, 8, 8)
    assert (config.routing, config.gate_scaling, config.dispatch) == ("top1", "none", "auto")
    assert (config.balance_norm, config.balance_scope) == ("switch", "sequence")
    assert config.balance_coef == 1e-2
    assert config.router_bias is False
    assert config.target_modules is None


def test_the_type_is_an_ordinary_member():
    assert PeftType("MOLE") is PeftType["MOLE"] is PeftType.MOLE
    assert PeftType.MOLE in list(PeftType)
    assert PeftType.LORA == "LORA"


def test_json_round_trip(tmp_path):
    config = MoleConfig(
        num_experts=5,
        r=4,
        lora_alpha=16,
        lora_dropout=0.05,
        routing="top1",
        gate_scaling="straight_through",
        balance_norm="authors",
        balance_scope="global_batch",
        balance_coef=0.5,
        router_bias=True,
        dispatch="grouped",
        target_modules=["mlp", "q_proj"],
    )
    config.save_pretrained(tmp_path)
    again = PeftConfig.from_pretrained(tmp_path)
    assert type(again) is MoleConfig
    assert dataclasses.asdict(again) == dataclasses.asdict(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"routing": "top2"}, "routing='top2' is unknown; use one of"),
        ({"gate_scaling": "softmax"}, "gate_scaling='softmax' is unknown"),
        ({"balance_norm": "mixtral"}, "balance_norm='mixtral' is unknown"),
        ({"balance_scope": "token"}, "balance_scope='token' is unknown"),
        ({"dispatch": "triton"}, "dispatch='triton' is unknown"),
        ({"num_experts": 0}, "num_experts must be an integer of at least 1, not 0"),
        ({"num_experts": 2.0}, "num_experts must be an integer"),
        ({"num_experts": True}, "num_experts must be an integer"),
        ({"r": 0}, "r must be an integer of at least 1"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0 must be in"),
        ({"balance_coef": -1.0}, "balance_coef=-1.0 must be finite"),
        ({"balance_coef": float("nan")}, "balance_coef=nan must be finite"),
        ({"routing": "dense", "gate_scaling": "prob"}, "set gate_scaling='none' instead of 'prob'"),
        ({"init_lora_weights": "pissa"}, "use True, False or 'gaussian'"),
        ({"bias": "all"}, "bias='all' is not supported"),
        ({"use_dora": True}, "use_dora is not supported by LoRA experts"),
        ({"lora_bias": True}, "lora_bias is not supported"),
        ({"target_parameters": ["w"]}, "target_parameters is not supported"),
        ({"target_modules": "all-linear"}, "would hit the vision tower too"),
    ],
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MoleConfig(**options)
