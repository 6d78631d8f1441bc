"""How many samples there are, how long, with how many images: by data set and source.

Everything is counted in columns: a few bytes a row stay in memory, however long the texts are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from llava_mole.data.prepared.recordset import RecordSet
from llava_mole.data.records import BadRecord
from llava_mole.data.tokens.encode import Encoder

ALL = "(all)"
_QUANTILES = {"p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99}
# Images per sample are counted one by one up to here, then together.
_MANY = 8


@dataclass(frozen=True)
class Columns:
    """One data set as numbers, a row each.

    Attributes:
        name: the data set's name.
        domain: its group in the mixture, "" outside one.
        sources: names of the sources.
        source: index into ``sources``, (n,) int32.
        num_images: images of each sample, (n,) int.
        lengths: tokens of each sample, image tokens included, (n,) int32; None where not known.
        num_bad: items that are left out because they can't be trained on.
        supervised: share of supervised tokens, estimated; None where not known.
    """

    name: str
    domain: str
    sources: tuple[str, ...]
    source: np.ndarray
    num_images: np.ndarray
    lengths: np.ndarray | None = None
    num_bad: int = 0
    supervised: float | None = None


@dataclass(frozen=True)
class Statistics:
    """The figures of one source of a data set, or of all of them together.

    Attributes:
        dataset: name of the data set.
        source: name of the source, ``(all)`` for the whole data set.
        samples: number of good samples.
        text_only: how many of them have no image.
        images: number of images.
        images_per_sample: images to number of samples with that many; ``8+`` for more.
        lengths: min, p5, median, mean, p95, p99 and max of the tokens; empty where not known.
        tokens: all tokens together.
        over_max_length: samples longer than the model's length.
        bad: items left out; counted for whole data sets only.
        supervised: estimated share of supervised tokens; for whole data sets only.
    """

    dataset: str
    source: str
    samples: int
    text_only: int
    images: int
    images_per_sample: dict[str, int]
    lengths: dict[str, float] = field(default_factory=dict)
    tokens: int | None = None
    over_max_length: int | None = None
    bad: int | None = None
    supervised: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def columns(
    records: RecordSet,
    keep: np.ndarray | None = None,
    lengths: np.ndarray | None = None,
    supervised: float | None = None,
) -> Columns:
    """The columns of an open data set.

    Args:
        records: the data set.
        keep: the good rows, (n,) int64 ascending, as an audit gives them; None means all.
        lengths: tokens of the rows of ``keep``, (n,); None takes those that the data set was
            prepared with, if it was.
        supervised: see `supervised_share`.
    """
    table = records.rows.data
    names: dict[str, int] = {}
    codes = []
    # Chunk by chunk: the text of two million sources is never in memory at once.
    for chunk in table.column("source").chunks:
        encoded = pc.dictionary_encode(chunk)
        own = [names.setdefault(name, len(names)) for name in encoded.dictionary.to_pylist()]
        codes.append(np.asarray(own, dtype=np.int32)[encoded.indices.to_numpy()])
    source = np.concatenate([np.empty(0, np.int32), *codes])
    num_images = pc.list_value_length(table.column("images")).to_numpy()
    if lengths is None and records.lengths is not None:
        lengths = table.column("length").to_numpy()
        lengths = lengths if keep is None else lengths[keep]
    if keep is not None:
        source, num_images = source[keep], num_images[keep]
    total = len(records) + len(records.problems)
    return Columns(
        name=records.name,
        domain=records.domain,
        sources=tuple(names),
        source=source,
        num_images=num_images,
        lengths=None if lengths is None else np.asarray(lengths),
        num_bad=total - len(source),
        supervised=supervised,
    )


def measure(data: Columns, max_length: int | None = None) -> list[Statistics]:
    """The figures of a data set: all of it, then source by source, the largest first.

    Args:
        data: of `columns`.
        max_length: the model's longest sequence, to count those above it.
    """
    whole = _figures(data, ALL, slice(None), max_length, data.num_bad, data.supervised)
    counts = np.bincount(data.source, minlength=len(data.sources))
    found = [index for index in np.argsort(-counts, kind="stable") if counts[index]]
    if len(found) < 2 and (not found or data.sources[found[0]] == data.name):
        return [whole]
    return [
        whole,
        *(
            _figures(data, data.sources[index], data.source == index, max_length, None, None)
            for index in found
        ),
    ]


def supervised_share(
    records: RecordSet, keep: np.ndarray, encoder: Encoder, samples: int = 500
) -> float | None:
    """Share of the tokens that the loss counts, from samples spread evenly over a data set.

    Args:
        records: the data set.
        keep: its good rows, (n,).
        encoder: of the run.
        samples: how many to encode.

    Returns:
        The share, or None without a sample.
    """
    supervised = total = 0
    for place in np.unique(np.linspace(0, len(keep) - 1, min(samples, len(keep))).astype(int)):
        try:
            encoded = encoder(records.record(int(keep[place])))
        except BadRecord:
            continue
        supervised += encoded.num_supervised
        total += len(encoded.input_ids)
    return supervised / total if total else None


def table(statistics: Sequence[Statistics]) -> str:
    """The figures as text, a line each."""
    lengths = any(item.lengths for item in statistics)
    supervised = any(item.supervised is not None for item in statistics)
    header = ["data set", "source", "samples", "bad", "text only", "images"]
    header += [*_LENGTHS, "over", "tokens"] if lengths else []
    header += ["supervised"] if supervised else []
    rows = [header]
    for item in statistics:
        first = item.source == ALL
        row = [item.dataset if first else "", item.source, f"{item.samples:,}"]
        row += ["" if item.bad is None else f"{item.bad:,}"]
        row += [f"{item.text_only:,}", _spread(item.images_per_sample)]
        if lengths:
            row += [f"{item.lengths[key]:,.0f}" if item.lengths else "-" for key in _LENGTHS]
            row += [_share(item.over_max_length, item.samples), _si(item.tokens)]
        if supervised:
            row += ["" if item.supervised is None else f"{item.supervised:.1%}"]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    left = {0, 1, 5}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


_LENGTHS = ("min", "p5", "median", "mean", "p95", "p99", "max")


def _figures(data: Columns, source: str, rows, max_length, bad, supervised) -> Statistics:
    images = data.num_images[rows].astype(np.int64)
    counts = np.bincount(np.minimum(images, _MANY), minlength=_MANY + 1)
    spread = {
        f"{number}+" if number == _MANY else str(number): int(count)
        for number, count in enumerate(counts)
        if count
    }
    lengths, tokens, over = {}, None, None
    if data.lengths is not None and len(images):
        own = data.lengths[rows]
        values = np.quantile(own, list(_QUANTILES.values())).tolist()
        lengths = dict(zip(_QUANTILES, values, strict=True))
        lengths |= {"min": int(own.min()), "mean": float(own.mean()), "max": int(own.max())}
        tokens = int(own.sum(dtype=np.int64))
        over = None if max_length is None else int((own > max_length).sum())
    return Statistics(
        dataset=data.name,
        source=source,
        samples=len(images),
        text_only=int(counts[0]),
        images=int(images.sum()),
        images_per_sample=spread,
        lengths={key: lengths[key] for key in _LENGTHS if key in lengths},
        tokens=tokens,
        over_max_length=over,
        bad=bad,
        supervised=supervised,
    )


def _spread(images_per_sample: dict[str, int]) -> str:
    """Images per sample as words: ``1``, or ``0: 12% 1: 88%``."""
    total = sum(images_per_sample.values())
    if len(images_per_sample) == 1:
        return f"{next(iter(images_per_sample))} each"
    return " ".join(f"{key}: {count / total:.1%}" for key, count in images_per_sample.items())


def _share(count: int | None, total: int) -> str:
    return "-" if count is None else "0" if not count else f"{count / total:.2%}"


def _si(count: int | None) -> str:
    """A large number in three digits: 1.23G."""
    if count is None:
        return "-"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
