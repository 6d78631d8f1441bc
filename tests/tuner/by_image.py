"""What tests of ``route_by_image`` share."""

import torch

from llava_mole.tuner import MoleLayer
from tests.tuner import models

TOKENS = ("input_ids", "attention_mask")

BY_IMAGE = {"route_by_image": True, "balance_coef": 0.0}


def inputs(**changes):
    batch = models.llava_batch()
    del batch["labels"]
    return {**batch, **changes}


def mixed():
    """Two images, and a text between them, padded on the left."""
    ids = torch.zeros(3, 9, dtype=torch.long)
    ids[0], ids[2] = models.llava_batch()["input_ids"]
    ids[1, 3:] = torch.tensor([1, 5, 6, 7, 8, 9])
    return inputs(input_ids=ids, attention_mask=(ids != 0).long())


def layers(model):
    return [module for module in model.modules() if isinstance(module, MoleLayer)]
