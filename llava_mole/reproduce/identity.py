"""What makes two runs the same: all of a config that can change the result, hashed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from llava_mole.train.config import RunConfig
from llava_mole.train.rundir import decisive

_OF_MOLE = ("num_experts", "routing", "gate_scaling", "router_bias", "route_by_image")
_OF_BALANCE = ("balance_norm", "balance_scope", "balance_coef")


def identity(config: RunConfig) -> dict[str, Any]:
    """All that can change the result: what the adapter's type does not read can't.

    Nor can what is zero, empty or off, which is left out too: then a key that a later version adds,
    off unless it is set, leaves the runs of before what they are.
    """
    drawn = dataclasses.replace(config, data=config.data.drawn())
    unread = {f"adapter.{key}" for key in idle(config)}
    if config.adapter.type != "mole":
        unread.add("train.router_lr")
    return {key: value for key, value in decisive(drawn).items() if value and key not in unread}


def idle(config: RunConfig) -> tuple[str, ...]:
    """Keys of the adapter's section that its type does not read."""
    if config.adapter.type != "mole":
        return (*_OF_MOLE, *_OF_BALANCE)
    return _OF_BALANCE if config.adapter.routing == "dense" else ()


def sha256(values: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, in hex, whatever their order."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
