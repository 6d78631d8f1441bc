"""What a run's training holds in memory between forward and backward."""

import torch

from llava_mole.bench.saved import bytes_saved
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


def saved_bytes(config: RunConfig, device: str = "cpu") -> int:
    """Bytes that a forward pass over the run's first samples saves for its backward pass.

    The first 8 samples, padded to one batch, without activation checkpointing: the same for runs of
    the same mixture and seed, so that adapters can be compared. Weights are not counted, and a
    tensor that several operations save counts once.

    Args:
        config: of the run.
        device: where the model is put. On a GPU other operations save other tensors, so figures of
            two kinds of device don't compare.

    Raises:
        ValueError: whatever keeps the run from starting.
    """
    torch.manual_seed(config.seed)
    model = attach(build_model(config.model), config).train().to(device)
    processor = build_processor(config.model)
    encoder = encoder_for(config.model, processor, config.data.overlong)
    data = open_data(_without_heldout(config), encoder, config.seed)
    samples = data.samples(encoder, ProcessorPixels(processor.image_processor))
    first = [samples[tuple(pair)] for pair in data.mixture.epoch(0)[:SAMPLES].tolist()]
    batch = PaddedCollator(processor.tokenizer.pad_token_id)(first)
    own = (*model.parameters(), *model.buffers())
    inputs = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in model_inputs(batch).items()
    }
    with torch.autocast(device, torch.bfloat16, enabled=config.train.bf16):
        return bytes_saved(lambda: model(**inputs), own)


def _without_heldout(config: RunConfig):
    data = config.data.drawn()
    data.eval = EvalConfig()
    return data
