"""The arms that are the product's or PEFT's own: an FFN, and what an adapter makes of it."""

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig

from llava_mole.bench.layer.arm import Arm, Result
from llava_mole.bench.layer.weights import LINEARS, Weights
from llava_mole.tuner import MoleConfig, balance_loss_of


class Decoder(nn.Module):
    """A decoder with nothing but FFNs, each of which reads the input: what adapters are put into.

    It has a decoder's shape, so that an adapter does all that it does in a model: its hooks run,
    and its routing is recorded.
    """

    def __init__(self, layers: Sequence[Weights]):
        super().__init__()
        mlps = [weights.ffn() for weights in layers]
        self.config = LlamaConfig(**mlps[0].config.to_dict() | {"num_hidden_layers": len(layers)})
        self.layers = nn.ModuleList(nn.ModuleDict({"mlp": mlp}) for mlp in mlps)

    def get_decoder(self) -> nn.Module:
        """What transformers' models call their stack of layers."""
        return self

    def forward(self, inputs_embeds: torch.Tensor) -> list[torch.Tensor]:
        """Every FFN's output for ``inputs_embeds (B, L, D)``."""
        return [layer["mlp"](inputs_embeds) for layer in self.layers]


class Frozen(Arm):
    """The base model's FFN, or several.

    Args:
        layers: weights of each FFN.
    """

    def __init__(self, *layers: Weights):
        super().__init__(layers[0])
        self.decoder = Decoder(layers)

    def __call__(self, x: torch.Tensor) -> Result:
        """The first FFN's output for ``x (1, T, D)``, and no balance loss."""
        return self.outputs(x)[0], None

    def outputs(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Every FFN's output for ``x (1, T, D)``."""
        return self.decoder(inputs_embeds=x)

    def _adapt(self, config: PeftConfig, layers: Sequence[Weights], fp32: bool) -> None:
        model = get_peft_model(self.decoder, config, autocast_adapter_dtype=fp32)
        if layers[0].dtype == torch.float64:
            model.double()  # MoLE's router too
        for layer, weights in zip(self.decoder.layers, layers, strict=True):
            for name, leaf in self._leaves_of(layer["mlp"]).items():
                leaf.data.copy_(weights.leaf(name).view_as(leaf))
        self.leaves = self._leaves_of(self.decoder.layers[0]["mlp"])

    def _leaves_of(self, mlp: nn.Module) -> dict[str, nn.Parameter]:
        raise NotImplementedError


class Lora(Frozen):
    """PEFT's LoRA on the FFN's three linears, with the first expert's weights.

    Args:
        layers: weights of each FFN.
        dropout: of PEFT's ``lora_dropout``.
        fp32: PEFT's default of float32 adapters on any base; else they have the base's dtype.
    """

    def __init__(self, *layers: Weights, dropout: float = 0.0, fp32: bool = False):
        super().__init__(*layers)
        r, scaling = layers[0].r, layers[0].scaling
        config = LoraConfig(
            r=r, lora_alpha=scaling * r, lora_dropout=dropout, target_modules=list(LINEARS)
        )
        self._adapt(config, [weights.first(1) for weights in layers], fp32)

    def _leaves_of(self, mlp: nn.Module) -> dict[str, nn.Parameter]:
        leaves = {}
        for name in LINEARS:
            linear = getattr(mlp, name)
            leaves[f"{name}.A"] = linear.lora_A["default"].weight
            leaves[f"{name}.B"] = linear.lora_B["default"].weight
        return leaves


class Mole(Frozen):
    """The product: ``get_peft_model(model, MoleConfig(...))``, all else at its defaults.

    Args:
        layers: weights of each FFN.
        routing: MoleConfig's, ``top1`` or ``dense``.
        fp32: PEFT's default of float32 adapters on any base; else they have the base's dtype.
    """

    def __init__(self, *layers: Weights, routing: str = "top1", fp32: bool = False):
        super().__init__(*layers)
        r, scaling, K = layers[0].r, layers[0].scaling, layers[0].num_experts
        config = MoleConfig(num_experts=K, r=r, lora_alpha=scaling * r, routing=routing)
        self._adapt(config, layers, fp32)

    def __call__(self, x: torch.Tensor) -> Result:
        """The first FFN's output for ``x (1, T, D)``, and its balance loss."""
        y = self.outputs(x)[0]
        return y, balance_loss_of(self.decoder)

    def _leaves_of(self, mlp: nn.Module) -> dict[str, nn.Parameter]:
        leaves = {"router": mlp.mole_router["default"].weight}
        for name in LINEARS:
            experts = getattr(mlp, f"mole_{name}")["default"]
            leaves |= {f"{name}.A": experts.A, f"{name}.B": experts.B}
        return leaves
