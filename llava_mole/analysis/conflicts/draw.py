"""Independent batches of each domain's samples."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset

from llava_mole.data.build import OpenData
from llava_mole.data.collate import Sample
from llava_mole.data.records import Record

BY = ("domain", "dataset")

Index = tuple[int, int]  # (data set, row), as `MixtureDataset` takes it


class DrawnBatches(Sequence):
    """Batches of samples that are read when they are asked for.

    Args:
        samples: indexed by ``(data set, row)``.
        indices: the batches.
    """

    def __init__(self, samples: Dataset, indices: Sequence[Sequence[Index]]) -> None:
        self.samples, self.indices = samples, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, batch: int) -> list[Sample]:
        """The samples of ``batch``; raises what the data set does."""
        return [self.samples[index] for index in self.indices[batch]]


def draw_batches(
    data: OpenData, batches: int, batch_size: int, seed: int, by: str = "domain"
) -> dict[str, list[list[Index]]]:
    """Draws ``batches`` batches of each domain, or of each data set.

    Within a domain a sample's data set is drawn as often as the mixture shows it. No record and no
    image is drawn twice, not even for two domains: batches that share one are not independent, and
    the cosine's estimate rests on that. What a domain gets depends on the seed and on names, but
    for such collisions.

    Args:
        data: open data; weight-0 data sets are left out.
        batches: N, batches of each domain.
        batch_size: samples of a batch.
        seed: of the draw.
        by: ``domain`` or ``dataset``: what is compared.

    Returns:
        Name to N lists of ``batch_size`` pairs (data set, row).

    Raises:
        ValueError: fewer than two domains, or one with too few samples.
    """
    groups: dict[str, list[int]] = {}
    for index, part in enumerate(data.mixture.parts):
        if part.weight > 0:
            groups.setdefault(part.domain if by == "domain" else part.name, []).append(index)
    if len(groups) < 2:
        raise ValueError(_too_few_groups(groups, by, len(data.mixture.parts)))
    used: set = set()
    drawn = {}
    for name, members in groups.items():
        indices = _draw(data, name, members, batches * batch_size, seed, used)
        drawn[name] = [
            indices[start : start + batch_size] for start in range(0, len(indices), batch_size)
        ]
    return drawn


def _draw(
    data: OpenData, name: str, members: list[int], count: int, seed: int, used: set
) -> list[Index]:
    rates = np.array([float(data.mixture.parts[index].per_epoch) for index in members])
    choices = _generator(seed, name).choice(len(members), size=count, p=rates / rates.sum())
    streams = [
        _rows(data, index, _generator(seed, name, data.mixture.parts[index].name), used)
        for index in members
    ]
    found = []
    for choice in choices:
        row = next(streams[choice], None)
        if row is None:
            part = data.mixture.parts[members[choice]]
            raise ValueError(
                f"data.domains: {name!r} has too few samples: {count:,} are to be drawn (--batches "
                f"x --batch-size), and {part.name!r}, with {part.size:,} records, has no more "
                f"after {len(found):,} whose record and image are not drawn already; lower "
                "--batches or --batch-size"
            )
        found.append((members[choice], row))
    return found


def _rows(data: OpenData, index: int, generator: np.random.Generator, used: set) -> Iterator[int]:
    """Rows of a data set in random order, without those whose record or image is used."""
    records, keep = data.sets[index], data.audit.keep[index]
    for row in generator.permutation(len(keep)).tolist():
        keys = _keys(records.record(int(keep[row])), str(records.image_root))
        if used.isdisjoint(keys):
            used |= keys
            yield row


def _keys(record: Record, root: str) -> set:
    """A key for the record, which a copy in another file has too, and one for each image."""
    images = [
        hashlib.sha256(image).digest() if isinstance(image, bytes) else (root, image)
        for image in record.images
    ]
    return {hashlib.sha256(repr((record.id, images, record.turns)).encode()).digest(), *images}


def _generator(*key: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _too_few_groups(groups: dict, by: str, sets: int) -> str:
    there = f"the only one with a weight above 0 is {next(iter(groups))!r}"
    if by == "domain" and sets > 1:
        return (
            f"data.domains: a conflict takes two domains, and {there}; compare its data sets with "
            "--by dataset, or add a domain"
        )
    return f"data.domains: a conflict takes two {by}s, and {there}; add another to data.domains"
