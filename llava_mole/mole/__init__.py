"""The sparse mixture of LoRA experts (MoLE) in pure torch.

Dimension letters used in this folder: B batch, L length, T = B*L tokens, D width, K experts,
r rank, S sequences in a micro-batch (a packed segment is a sequence of its own), N layers with
MoLE, M datasets.
"""

from llava_mole.mole.balance import (
    BALANCE_NORMS,
    BALANCE_SCOPES,
    GlobalCounts,
    balance_loss,
    sum_by_sequence,
)
from llava_mole.mole.by_token import ffn_by_token, takes_by_token
from llava_mole.mole.dispatch import BY_TOKEN_MAX_TOKENS, DISPATCH_PATHS, ROUTINGS, Dispatch
from llava_mole.mole.domains import domain_loss, experts_of_domains
from llava_mole.mole.experts import LoraExperts, lora_experts
from llava_mole.mole.fused import FusedSettings, fused_ffn
from llava_mole.mole.lora import lora_linear
from llava_mole.mole.pooled import pool_images
from llava_mole.mole.router import GATE_SCALINGS, Route, Router, route
from llava_mole.mole.sequences import sequence_ids, sequence_layout
from llava_mole.mole.statistics import (
    dead_expert_share,
    jensen_shannon,
    load_entropy,
    summarize_load,
    tokens_per_expert,
)

__all__ = [
    "BALANCE_NORMS",
    "BALANCE_SCOPES",
    "BY_TOKEN_MAX_TOKENS",
    "DISPATCH_PATHS",
    "GATE_SCALINGS",
    "ROUTINGS",
    "Dispatch",
    "FusedSettings",
    "GlobalCounts",
    "LoraExperts",
    "Route",
    "Router",
    "balance_loss",
    "dead_expert_share",
    "domain_loss",
    "experts_of_domains",
    "ffn_by_token",
    "fused_ffn",
    "jensen_shannon",
    "load_entropy",
    "lora_experts",
    "lora_linear",
    "pool_images",
    "route",
    "sequence_ids",
    "sequence_layout",
    "sum_by_sequence",
    "summarize_load",
    "takes_by_token",
    "tokens_per_expert",
]
