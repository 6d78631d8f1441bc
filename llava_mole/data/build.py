"""A run's ``data:`` section to what the trainer iterates over."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llava_mole.data.audit.audit import Audit, audit, enforce
from llava_mole.data.config import DataConfig
from llava_mole.data.dataset import MixtureDataset, Pixels, RecordDataset
from llava_mole.data.images.features import FeatureCache
from llava_mole.data.mixture import Mixture, Part
from llava_mole.data.prepared.recordset import RecordSet, open_dataset
from llava_mole.data.tokens.encode import Encoder


@dataclass(frozen=True)
class OpenData:
    """Checked data sets, before anything about the model's pixels is known.

    Attributes:
        sets: the mixture's data sets; their position is the ``dataset_ids`` value in batches.
        eval_sets: the held-out sets, numbered on from ``len(sets)``.
        audit: of ``sets`` followed by ``eval_sets``.
        mixture: of the records that are used.
    """

    sets: list[RecordSet]
    eval_sets: list[RecordSet]
    audit: Audit
    mixture: Mixture

    @property
    def lengths(self) -> list[np.ndarray | None]:
        """For each of ``sets``, tokens of its samples, (n,) int32; None without an encoder."""
        return self.audit.lengths[: len(self.sets)]

    @property
    def num_images(self) -> list[np.ndarray]:
        """For each of ``sets``, images of its samples, (n,) int16."""
        return self.audit.num_images[: len(self.sets)]

    @property
    def names(self) -> list[str]:
        """Data set names by ``dataset_ids`` value, the held-out ones last."""
        return [records.name for records in (*self.sets, *self.eval_sets)]

    def sizes(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and images of samples in an order, e.g. that of ``mixture.epoch(0)``.

        Args:
            order: (n, 2), columns (data set, row).

        Returns:
            Two arrays (n,) int64; audited with an encoder, or tokens are not known.
        """
        tokens, images = (np.empty(len(order), dtype=np.int64) for _ in range(2))
        for index in range(len(self.sets)):
            here = order[:, 0] == index
            rows = order[here, 1]
            tokens[here] = self.lengths[index][rows]
            images[here] = self.num_images[index][rows]
        return tokens, images

    def samples(
        self, encoder: Encoder, pixels: Pixels, features: FeatureCache | None = None
    ) -> MixtureDataset:
        """The training samples, indexed by ``(data set, row)`` as the mixture draws them."""
        return MixtureDataset(
            [
                RecordDataset(records, self.audit.keep[index], encoder, pixels, features, index)
                for index, records in enumerate(self.sets)
            ]
        )

    def eval_samples(
        self,
        encoder: Encoder,
        pixels: Pixels,
        features: FeatureCache | None = None,
        max_samples: int | None = None,
    ) -> Mapping[str, RecordDataset]:
        """The held-out sets' samples by name, at most ``max_samples`` of each."""
        first = len(self.sets)
        return {
            records.name: RecordDataset(
                records, self.audit.keep[index][:max_samples], encoder, pixels, features, index
            )
            for index, records in enumerate(self.eval_sets, start=first)
        }


def open_sets(config: DataConfig) -> tuple[list[RecordSet], list[RecordSet]]:
    """The open data sets of ``config``: those of the mixture, and the held-out ones.

    Raises:
        ValueError: no data set, or a wrong path.
    """
    if not config.domains:
        raise ValueError("data.domains is empty: name at least one domain with one data set")
    sets = [
        open_dataset(dataset, name, domain.weight, config.cache_dir)
        for name, domain in config.domains.items()
        for dataset in domain.datasets
    ]
    return sets, [
        open_dataset(dataset, cache_dir=config.cache_dir) for dataset in config.eval.datasets
    ]


def open_data(
    config: DataConfig,
    encoder: Encoder | None,
    seed: int,
    report: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> OpenData:
    """Opens, converts and audits all data sets of ``config``.

    An audit with the same settings that was made before will do, see `audit`.

    Args:
        config: the ``data:`` section.
        encoder: to find samples that don't fit before training; ``None`` leaves that out.
        seed: of the mixture.
        report: JSONL file for bad records.
        progress: whether to show a progress bar.

    Raises:
        ValueError: no data set, a wrong path, or bad records that the policy does not bear.
    """
    sets, eval_sets = open_sets(config)
    everything = [*sets, *eval_sets]
    result = audit(
        everything,
        encoder=encoder,
        check_images=config.check_images,
        num_workers=config.num_workers,
        progress=progress,
        cache_dir=config.cache_dir,
        reuse=True,
    )
    enforce(result, everything, config.on_bad_record, config.max_bad_fraction, report)
    configs = [dataset for domain in config.domains.values() for dataset in domain.datasets]
    parts = [
        Part(records.domain, records.name, len(rows), records.weight, dataset.resample)
        for records, rows, dataset in zip(sets, result.keep[: len(sets)], configs, strict=True)
    ]
    return OpenData(sets, eval_sets, result, Mixture(parts, seed))
