"""The configuration of a MoLE adapter."""

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from peft import LoraConfig
from peft.utils import PeftType

from llava_mole.mole import (
    BALANCE_NORMS,
    BALANCE_SCOPES,
    DISPATCH_PATHS,
    GATE_SCALINGS,
    ROUTINGS,
)

# Options of LoraConfig that change what a LoRA is; experts do not implement them, and an adapter
# whose attention has them and whose FFNs have not would be neither.
_LORA_ONLY = (
    "use_dora",
    "lora_bias",
    "target_parameters",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "velora_config",
    "monteclora_config",
    "kasa_config",
    "arrow_config",
    "megatron_config",
)


@dataclass
class MoleConfig(LoraConfig):
    """A sparse mixture of LoRA experts in every FFN, plain LoRA in attention (LLaVA-MoLE, Sec. 3).

    ``r``, ``lora_alpha``, ``lora_dropout``, ``use_rslora`` and ``init_lora_weights`` hold for the
    experts and for attention alike. With ``target_modules=None`` the language model's FFNs and
    attention linears are found by themselves, and vision tower, projector and head left alone.
    Given explicitly, ``target_modules`` names FFN modules (``"mlp"``; ``"fc1"`` where the FFN is a
    pair of linears without a module of its own) and linears outside FFNs; ``exclude_modules``,
    ``layers_to_transform``, ``rank_pattern``, ``alpha_pattern`` and ``modules_to_save`` work as in
    :class:`~peft.LoraConfig`.

    Args:
        num_experts: Experts K per FFN.
        routing: ``"top1"`` (Eq. 3) or ``"dense"`` (softmax-weighted sum, Table 5).
        gate_scaling: Factor on the chosen expert's output. ``"none"`` as printed in Eq. 4, where
            only the balance loss trains the router; ``"prob"``: its probability;
            ``"straight_through"``: one, with the probability's gradient.
        balance_norm: ``"switch"``, ``"paper"`` (Eq. 7 as printed; grows with the square of the
            length) or ``"authors"``.
        balance_scope: What X is in Eq. 6-8: each ``"sequence"``, the ``"micro_batch"`` or the
            ``"global_batch"`` (all ranks, and with ``balance_loss_of`` all micro-steps).
        balance_coef: Factor on the balance loss (1e-2 in Sec. 3.4).
        router_bias: Adds a bias to the router's logits; the paper has none.
        route_by_image: Ours: every router reads the mean of the sequence's image tokens as they
            enter the decoder (:func:`~llava_mole.mole.pool_images`) instead of each token, so that
            in each FFN a whole sequence goes to one expert, known before the first token is read.
        dispatch: How experts are computed: ``"auto"``, ``"fused"`` (the FFN as a whole),
            ``"loop"``, ``"masked"`` or ``"grouped"``.

    Raises:
        ValueError: If a value is out of range, or an option of LoRA is set that experts lack.
    """

    num_experts: int = field(default=3, metadata={"help": "Number of LoRA experts per FFN."})
    routing: Literal["top1", "dense"] = field(
        default="top1", metadata={"help": "One expert per token, or all weighted by softmax."}
    )
    gate_scaling: Literal["none", "prob", "straight_through"] = field(
        default="none", metadata={"help": "Factor on the chosen expert's output."}
    )
    balance_norm: Literal["paper", "switch", "authors"] = field(
        default="switch", metadata={"help": "Normalisation of the balance loss."}
    )
    balance_scope: Literal["sequence", "micro_batch", "global_batch"] = field(
        default="sequence", metadata={"help": "Tokens over which the load is balanced."}
    )
    balance_coef: float = field(default=1e-2, metadata={"help": "Factor on the balance loss."})
    router_bias: bool = field(default=False, metadata={"help": "Give the router a bias."})
    route_by_image: bool = field(
        default=False, metadata={"help": "Send whole sequences to experts, by their images."}
    )
    dispatch: Literal["auto", "fused", "loop", "masked", "grouped"] = field(
        default="auto", metadata={"help": "How the experts are computed."}
    )

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType.MOLE
        for name, allowed in (
            ("routing", ROUTINGS),
            ("gate_scaling", GATE_SCALINGS),
            ("balance_norm", BALANCE_NORMS),
            ("balance_scope", BALANCE_SCOPES),
            ("dispatch", DISPATCH_PATHS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"MoleConfig: {name}={value!r} is unknown; use one of {allowed}.")
        for name in ("num_experts", "r"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"MoleConfig: {name} must be an integer of at least 1, not {value!r}."
                )
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"MoleConfig: lora_dropout={self.lora_dropout!r} must be in [0, 1).")
        if not (math.isfinite(self.balance_coef) and self.balance_coef >= 0):
            raise ValueError(
                f"MoleConfig: balance_coef={self.balance_coef!r} must be finite and not negative."
            )
        if self.routing == "dense" and self.gate_scaling != "none":
            raise ValueError(
                "MoleConfig: routing='dense' weighs every expert by its probability already; "
                f"set gate_scaling='none' instead of {self.gate_scaling!r}."
            )
        if self.route_by_image and self.balance_coef and self.balance_scope == "sequence":
            raise ValueError(
                "MoleConfig: route_by_image sends a sequence to one expert, and balance_scope="
                "'sequence' asks that each sequence use all; set balance_scope='global_batch' (or "
                "'micro_batch'), or balance_coef=0."
            )
        self._refuse_lora_only_options()

    def _refuse_lora_only_options(self) -> None:
        if self.init_lora_weights not in (True, False, "gaussian"):
            raise ValueError(
                f"MoleConfig: init_lora_weights={self.init_lora_weights!r} derives weights "
                "from the base layer, which experts do not support; use True, False or 'gaussian'."
            )
        if self.bias != "none":
            raise ValueError(f"MoleConfig: bias={self.bias!r} is not supported; use bias='none'.")
        if self.target_modules == "all-linear":
            raise ValueError(
                "MoleConfig: target_modules='all-linear' would hit the vision tower too; leave "
                "target_modules at None to adapt the language model's FFNs and attention."
            )
        defaults = {f.name: f.default for f in fields(self)}
        for name in _LORA_ONLY:
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"MoleConfig: {name} is not supported by LoRA experts; leave it at its default "
                    f"({defaults[name]!r})."
                )
