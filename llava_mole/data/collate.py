"""Samples to a micro-batch: padded rows, or several samples packed into one row.

Both give the same keys: what the model's forward takes (``input_ids``; ``attention_mask`` or
``position_ids``; ``pixel_values``), and what the loss takes. Only positions whose next token is a
target need logits: ``logits_to_keep`` holds those positions, and ``targets`` the next tokens'
ids there. The model is never given ``labels``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypedDict

import torch

from llava_mole.data.records import Problem
from llava_mole.data.tokens.encode import IGNORE_INDEX, Encoded

# What of a micro-batch is the loss's and the trainer's business, not the model's.
_ASIDE = ("targets", "dataset_ids", "num_sequences", "problems")


class Sample(TypedDict, total=False):
    """What `MixtureDataset` gives for one record.

    ``pixel_values`` is (n, 3, H, W) of the sample's n images, or (n, P, width) of their cached
    features, and is absent for text alone. ``problem`` says what is wrong where a sample stands in
    for one that can't be read.
    """

    encoded: Encoded
    pixel_values: torch.Tensor
    dataset_id: int
    problem: Problem


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """The part of a micro-batch that the model's forward takes."""
    return {key: value for key, value in batch.items() if key not in _ASIDE}


def _common(samples: Sequence[Sample]) -> dict[str, Any]:
    images = [sample["pixel_values"] for sample in samples if "pixel_values" in sample]
    common: dict[str, Any] = {"pixel_values": torch.cat(images)} if images else {}
    common["dataset_ids"] = torch.tensor([sample["dataset_id"] for sample in samples])
    common["num_sequences"] = len(samples)
    common["problems"] = [sample["problem"] for sample in samples if "problem" in sample]
    return common


@dataclass(frozen=True)
class PaddedCollator:
    """One sample a row, filled up on the right.

    Right padding is for training only; generation needs left padding, which the processor does.

    Attributes:
        pad_token_id: id that fills the rows; any, for it is masked.
        pad_to_multiple_of: rows are filled up to a multiple of this.
    """

    pad_token_id: int
    pad_to_multiple_of: int = 1

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A micro-batch of B samples.

        Returns:
            ``input_ids`` (B, L) int64; ``attention_mask`` (B, L) int64, 0 on padding;
            ``pixel_values`` (N, 3, H, W) or (N, P, width), absent without images;
            ``logits_to_keep`` (M,) int64, positions whose next token is a target in any row;
            ``targets`` (B, M) int64 with -100; ``dataset_ids`` (B,) int64; ``num_sequences`` B;
            ``problems``, a list.
        """
        lengths = [len(sample["encoded"].input_ids) for sample in samples]
        multiple = self.pad_to_multiple_of
        length = -(-max(lengths) // multiple) * multiple
        shape = (len(samples), length)
        input_ids = torch.full(shape, self.pad_token_id, dtype=torch.int64)
        labels = torch.full(shape, IGNORE_INDEX, dtype=torch.int64)
        attention_mask = torch.zeros(shape, dtype=torch.int64)
        for row, (sample, used) in enumerate(zip(samples, lengths, strict=True)):
            input_ids[row, :used] = sample["encoded"].input_ids
            labels[row, :used] = sample["encoded"].labels
            attention_mask[row, :used] = 1
        following = labels[:, 1:]
        keep = (following != IGNORE_INDEX).any(dim=0).nonzero().flatten()
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "logits_to_keep": keep,
            "targets": following[:, keep],
            **_common(samples),
        }


@dataclass(frozen=True)
class PackedCollator:
    """All samples one after the other in one row, without padding.

    ``position_ids`` start at 0 with every sample and there is no attention mask. By that
    transformers' SDPA, eager and flash attention keep the samples apart, provided that no cache is
    built: call the model with ``use_cache=False``. Where samples begin is given besides, under the
    names of flash attention, which would have to ask the device for it in every layer.
    """

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A micro-batch of S samples of T tokens together.

        Returns:
            ``input_ids`` (1, T) int64; ``position_ids`` (1, T) int64; ``cu_seq_lens_q`` and
            ``cu_seq_lens_k`` (S + 1,) int32, where samples begin, and T; ``max_length_q`` and
            ``max_length_k``, the longest sample's length;
            ``pixel_values`` (N, 3, H, W) or (N, P, width), absent without images;
            ``logits_to_keep`` (M,) int64, exactly the positions whose next token is a target of
            the same sample; ``targets`` (1, M) int64; ``dataset_ids`` (S,) int64;
            ``num_sequences`` S; ``problems``, a list.
        """
        input_ids = torch.cat([sample["encoded"].input_ids for sample in samples])
        lengths = [len(sample["encoded"].input_ids) for sample in samples]
        bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
        labels = []
        for sample in samples:
            own = sample["encoded"].labels.clone()
            # The first token has nothing before it but the previous sample.
            own[0] = IGNORE_INDEX
            labels.append(own)
        following = torch.cat(labels)[1:]
        keep = (following != IGNORE_INDEX).nonzero().flatten()
        return {
            "input_ids": input_ids[None],
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
            "logits_to_keep": keep,
            "targets": following[keep][None],
            **_common(samples),
        }
