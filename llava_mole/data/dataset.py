"""Samples by position: the step from a record to ids, labels and pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava_mole.data.arrow import RecordSet
from llava_mole.data.collate import Sample
from llava_mole.data.encode import Encoder
from llava_mole.data.features import FeatureCache
from llava_mole.data.images import ImageError, load_image
from llava_mole.data.records import Record

Pixels = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class ProcessorPixels:
    """An HF image processor as a function of one RGB image to (3, H, W).

    Attributes:
        image_processor: pads, resizes and normalises by itself, the same as in chat and scoring.
    """

    image_processor: Any

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Pixels of ``image``, (3, H, W) float32."""
        return self.image_processor(image, return_tensors="pt")["pixel_values"][0]


class RecordDataset(torch.utils.data.Dataset):
    """One data set's good records as samples.

    Args:
        records: the open data set.
        keep: rows to use, (n,) int64 ascending; ``None`` means all.
        encoder: record to ids and labels.
        pixels: RGB image to (3, H, W); not called for images in ``features``.
        features: cached features of the vision tower, used instead of pixels.
        dataset_id: number of this data set in ``dataset_ids`` of a batch.
    """

    def __init__(
        self,
        records: RecordSet,
        keep: np.ndarray | None,
        encoder: Encoder,
        pixels: Pixels,
        features: FeatureCache | None = None,
        dataset_id: int = 0,
    ) -> None:
        self.records = records
        self.keep = np.arange(len(records)) if keep is None else keep
        self.encoder = encoder
        self.pixels = pixels
        self.features = features
        self.dataset_id = dataset_id

    def __len__(self) -> int:
        return len(self.keep)

    def record(self, index: int) -> Record:
        """The record behind sample ``index``."""
        return self.records.record(int(self.keep[index]))

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``.

        Raises:
            BadRecord: its image can't be read any more, or it doesn't fit.
        """
        record = self.record(index)
        encoded = self.encoder(record)
        sample = Sample(encoded=encoded, dataset_id=self.dataset_id)
        if encoded.images:
            try:
                images = [self._image(path) for path in encoded.images]
            except ImageError as error:
                raise record.bad(str(error)) from None
            sample["pixel_values"] = torch.stack(images)
        return sample

    def _image(self, path: str) -> torch.Tensor:
        if self.features is not None:
            return self.features.get(path, self.records.image_root)
        return self.pixels(load_image(path, self.records.image_root))


class MixtureDataset(torch.utils.data.Dataset):
    """Several data sets, indexed by ``(data set, row)`` as `EpochSampler` draws them.

    Args:
        members: in the order of the mixture's parts.
    """

    def __init__(self, members: Sequence[RecordDataset]) -> None:
        self.members = list(members)

    def __len__(self) -> int:
        return sum(map(len, self.members))

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        """Sample ``row`` of ``data set``; raises what `RecordDataset` does."""
        dataset, row = index
        return self.members[dataset][row]
