"""Asks a model with a MoLE adapter for its routing, balance loss and targets."""

import torch
from torch import nn

from llava_mole.mole import tokens_per_expert
from llava_mole.tuner.layer import MoleLayer
from llava_mole.tuner.model import MoleModel
from llava_mole.tuner.state import Routing, RoutingState
from llava_mole.tuner.targets import Layout, find_layout


def _state(model: nn.Module) -> RoutingState:
    for module in model.modules():
        # The tuner comes first: a walk to a layer would pass the vision tower at each step.
        if isinstance(module, MoleModel | MoleLayer):
            return module.state
    raise ValueError(
        f"{type(model).__name__} has no MoLE adapter; call get_peft_model(model, MoleConfig())."
    )


def routing_of(model: nn.Module, adapter_name: str | None = None) -> Routing:
    """How the model's last forward routed its tokens.

    Args:
        model: A model with a MoLE adapter, wrapped (PEFT, DDP, DeepSpeed) or not.
        adapter_name: Needed only when several adapters are active.

    Returns:
        Counts, summed probabilities (with their graph) and lengths per sequence.

    Raises:
        ValueError: If the model has no MoLE adapter or has not run with it.
    """
    return _state(model).routing(adapter_name)


def balance_loss_of(
    model: nn.Module, num_sequences: int | torch.Tensor | None = None
) -> torch.Tensor:
    """The balance loss of the model's last forward, times ``balance_coef``.

    Add it to the language loss yourself only if the model was called without labels: with labels,
    in training, it is part of the returned loss already. With ``balance_scope="global_batch"`` call
    it once per micro-step on every rank, and :func:`reset_balance_counts` after the optimizer step.

    Args:
        model: A model with a MoLE adapter.
        num_sequences: Sequences of the whole global batch (all ranks and micro-steps). The results
            of all micro-steps and ranks then **add up** to the global batch's balance loss. None:
            the mean over this forward's sequences.

    Returns:
        Scalar float32 with gradient; zero for dense routing, which leaves nothing to balance. With
        several active adapters, the sum of theirs.

    Raises:
        ValueError: If the model has no MoLE adapter or has not run with it.
    """
    state = _state(model)
    if not state.records:
        state.routing()  # says what is missing
    return sum(state.balance_loss(name, num_sequences) for name in state.records)


def reset_balance_counts(model: nn.Module) -> None:
    """Starts the next global batch; call it once per optimizer step with ``"global_batch"``."""
    _state(model).reset_global_counts()


def load_stats(
    model: nn.Module,
    dataset_ids: torch.Tensor,
    num_datasets: int,
    adapter_name: str | None = None,
) -> torch.Tensor:
    """Tokens per dataset, layer and expert of the last forward, without waiting for the device.

    Sum these over a logging window (and ranks), then call ``mole.summarize_load`` on the total.

    Args:
        model: A model with a MoLE adapter.
        dataset_ids: ``(S,)`` int64, dataset of each sequence of the batch.
        num_datasets: M.
        adapter_name: Needed only when several adapters are active.

    Returns:
        ``(M, N, K)`` float32 on the model's device, padding excluded.
    """
    counts = routing_of(model, adapter_name).counts
    if len(dataset_ids) != counts.shape[1]:
        raise ValueError(
            f"dataset_ids names {len(dataset_ids)} sequences, the last forward had "
            f"{counts.shape[1]}; give one id per row, or per segment of a packed row."
        )
    return tokens_per_expert(counts, dataset_ids, num_datasets)


def _layout(model: nn.Module) -> Layout:
    for module in model.modules():
        if isinstance(module, MoleModel):
            return module._layout
    return find_layout(model)


def ffn_targets(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The language model's FFNs: name of the module -> names of its linears."""
    return dict(_layout(model).ffns)


def attention_targets(model: nn.Module) -> list[str]:
    """The names of the language model's attention linears."""
    return list(_layout(model).attention)


def lora_targets(model: nn.Module) -> list[str]:
    """The linears that MoLE adapts, for the plain-LoRA baseline's ``LoraConfig.target_modules``."""
    layout = _layout(model)
    return [*layout.attention, *(name for names in layout.ffns.values() for name in names)]
