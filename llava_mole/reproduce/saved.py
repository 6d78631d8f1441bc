"""What training holds in memory between forward and backward."""

import torch
from torch import nn

from llava_mole.data.build import open_data
from llava_mole.data.collate import PaddedCollator, model_inputs
from llava_mole.data.config import EvalConfig
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.model.build import build_model
from llava_mole.model.processor import build_processor
from llava_mole.train.adapter import attach
from llava_mole.train.config import RunConfig
from llava_mole.train.encoder import encoder_for

SAMPLES = 8


def saved_bytes(config: RunConfig) -> int:
    """Bytes that a forward pass over the run's first samples saves for its backward pass.

    The first 8 samples, padded to one batch, on the CPU: the same for runs of the same mixture and
    seed, so that adapters can be compared. Weights are not counted, and a tensor that several
    operations save counts once.

    Raises:
        ValueError: whatever keeps the run from starting.
    """
    torch.manual_seed(config.seed)
    model = attach(build_model(config.model), config).train()
    processor = build_processor(config.model)
    encoder = encoder_for(config.model, processor, config.data.overlong)
    data = open_data(_without_heldout(config), encoder, config.seed)
    samples = data.samples(encoder, ProcessorPixels(processor.image_processor))
    first = [samples[tuple(pair)] for pair in data.mixture.epoch(0)[:SAMPLES].tolist()]
    batch = PaddedCollator(processor.tokenizer.pad_token_id)(first)
    return _saved(model, model_inputs(batch))


def _without_heldout(config: RunConfig):
    data = config.data.drawn()
    data.eval = EvalConfig()
    return data


def _saved(model: nn.Module, inputs: dict) -> int:
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # Held until the end, so that no address is used twice.
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**inputs)
    return sum(storage.nbytes() for storage in saved.values())
