"""Samples by position: the step from a record to ids, labels and pixels."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from llava_mole.data.collate import Sample
from llava_mole.data.images.features import FeatureCache
from llava_mole.data.images.read import ImageError, load_image
from llava_mole.data.prepared.recordset import RecordSet
from llava_mole.data.records import BadRecord, Problem, Record
from llava_mole.data.tokens.encode import IGNORE_INDEX, Encoded, Encoder

Pixels = Callable[[Image.Image], torch.Tensor]


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
        self._stand_in: int | None = None

    def marking(self, token_id: int) -> "RecordDataset":
        """The same samples, but one that can't be read is marked instead of raised.

        It keeps its place as a sequence of the one token ``token_id`` without image or target, so
        that no answer is learnt from it (in a MoLE's balance loss it is one sequence as any other),
        and says under ``problem`` what is wrong. No other sample takes its place: batches would
        depend on when a file went bad.
        """
        marking = copy.copy(self)
        marking._stand_in = token_id
        return marking

    def __len__(self) -> int:
        return len(self.keep)

    def record(self, index: int) -> Record:
        """The record behind sample ``index``."""
        return self.records.record(int(self.keep[index]))

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``.

        Raises:
            BadRecord: its image can't be read any more, or it doesn't fit; not if `marking`.
        """
        try:
            return self._read(self.record(index))
        except BadRecord as error:
            if self._stand_in is None:
                raise
            token = torch.tensor([self._stand_in])
            return Sample(
                encoded=Encoded(token, torch.full_like(token, IGNORE_INDEX), num_supervised=0),
                dataset_id=self.dataset_id,
                problem=Problem.of(self.records.name, error),
            )

    def _read(self, record: Record) -> Sample:
        encoded = self.encoder(record)
        sample = Sample(encoded=encoded, dataset_id=self.dataset_id)
        if encoded.images:
            try:
                images = [self._image(image) for image in encoded.images]
            except ImageError as error:
                raise record.bad(str(error)) from None
            sample["pixel_values"] = torch.stack(images)
        return sample

    def _image(self, image: str | bytes) -> torch.Tensor:
        if self.features is not None:
            return self.features.get(image, self.records.image_root)
        return self.pixels(load_image(image, self.records.image_root))


class MixtureDataset(torch.utils.data.Dataset):
    """Several data sets, indexed by ``(data set, row)`` as `EpochSampler` draws them.

    Args:
        members: in the order of the mixture's parts.
    """

    def __init__(self, members: Sequence[RecordDataset]) -> None:
        self.members = list(members)

    def marking(self, token_id: int) -> "MixtureDataset":
        """The same with samples that can't be read marked, see `RecordDataset.marking`."""
        return MixtureDataset([member.marking(token_id) for member in self.members])

    def __len__(self) -> int:
        return sum(map(len, self.members))

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        """Sample ``row`` of ``data set``; raises what `RecordDataset` does."""
        dataset, row = index
        return self.members[dataset][row]
