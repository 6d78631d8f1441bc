"""Attaches the adapter and sets what a stage trains."""

import dataclasses
import logging

import peft
import torch
from torch import nn

from llava_mole.model.freeze import freeze, table
from llava_mole.train.config import AdapterConfig, RunConfig
from llava_mole.train.initial import load_initial, refuse_another_adapter
from llava_mole.tuner import MoleConfig, lora_targets

PROJECTOR = "multi_modal_projector"

logger = logging.getLogger(__name__)


def attach(model: nn.Module, config: RunConfig) -> nn.Module:
    """``model`` as the stage trains it: adapter attached, everything else frozen.

    Trained weights are float32, whatever the base: an update of 2e-5 is lost in bfloat16. Under
    DeepSpeed they follow its own setting, which keeps float32 masters.

    Returns:
        A PEFT model in finetuning with an adapter, else ``model`` itself.

    Raises:
        ValueError: ``adapter.init_from`` names a run that this one can't go on from.
    """
    refuse_another_adapter(config)
    if config.stage == "finetune" and config.adapter.type != "none":
        model = peft.get_peft_model(model, peft_config(config.adapter, model))
        load_initial(model, config)
    counts = freeze(model, config.stage, config.train.freeze_mm_mlp_adapter)
    if config.train.deepspeed is None:
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.device.type != "meta":
                parameter.data = parameter.data.to(torch.float32)
    logger.info("stage %s trains:\n%s", config.stage, table(counts))
    return model


def peft_config(adapter: AdapterConfig, model: nn.Module) -> peft.PeftConfig:
    """PEFT's config for ``adapter``; the projector travels along as a module to save.

    ``mole`` and ``lora`` adapt the very same linears, so that the plain-LoRA baseline differs in
    the experts alone.
    """
    if adapter.type == "mole":
        values = dataclasses.asdict(adapter)
        del values["type"], values["init_from"]
        return MoleConfig(**values, modules_to_save=[PROJECTOR])
    targets = adapter.target_modules
    return peft.LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        rank_pattern=adapter.rank_pattern,
        alpha_pattern=adapter.alpha_pattern,
        target_modules=lora_targets(model) if targets is None else targets,
        modules_to_save=[PROJECTOR],
    )
