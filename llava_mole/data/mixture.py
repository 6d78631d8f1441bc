"""Weighted mixtures of data sets whose counts and order are exact and reproducible.

Each data set is an endless stream: one seeded permutation of its n samples after another. With
sampling frequency w (the domain's lambda times the set's base weight), epoch e takes the stream's
positions floor(e*w*n) up to floor((e+1)*w*n). So lambda = 2 shows each sample exactly twice an
epoch, lambda = 0.25 a fresh quarter each epoch until all have been seen, and the realised counts
are exact to one sample in every epoch and over all of them. What an epoch took is then shuffled.
A data set that is resampled to m counts as m samples instead of n: epoch e takes the positions
floor(e*w*m) up to floor((e+1)*w*m), so that with m = 1.68 n every sample is shown once or twice.

The order depends on (seed, epoch) and the data sets' names, sizes, weights and resampled sizes, and
on nothing else: not on ranks, workers or what was drawn before.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Part:
    """One data set in a mixture.

    Attributes:
        domain: group that the data set belongs to.
        name: the data set's name, unique in the mixture.
        size: number of samples n.
        weight: sampling frequency: the domain's weight times the data set's base weight.
        resample: samples per unit of weight; null means n.
    """

    domain: str
    name: str
    size: int
    weight: float = 1.0
    resample: int | None = None

    @property
    def per_epoch(self) -> Fraction:
        """Samples an epoch takes on average, exactly."""
        # Decimal as written: 0.1 must mean one tenth, or floor(e*w*n) drifts by one.
        return Fraction(repr(float(self.weight))) * (self.resample or self.size)


class Mixture:
    """The samples of every epoch, in order, as a function of (seed, epoch).

    Args:
        parts: the data sets; their position is the ``dataset`` index that is drawn.
        seed: of all permutations.

    Raises:
        ValueError: an empty data set with a positive weight, a negative weight, a name given
            twice, or nothing left to draw.
    """

    def __init__(self, parts: Sequence[Part], seed: int = 0) -> None:
        self.parts = tuple(parts)
        self.seed = int(seed)
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise ValueError(f"mixture: data set names must be unique, got {names}")
        for part in self.parts:
            if part.weight < 0:
                raise ValueError(f"mixture: weight of {part.name!r} is {part.weight}; must be >= 0")
            if part.weight > 0 and part.size == 0:
                raise ValueError(
                    f"mixture: data set {part.name!r} has no samples; check its file or give it "
                    "weight 0"
                )
        if not any(part.weight > 0 for part in self.parts):
            raise ValueError("mixture: no data set has a weight above 0, so there is nothing to do")
        self._rates = [part.per_epoch for part in self.parts]

    def epoch(self, epoch: int) -> np.ndarray:
        """The samples of ``epoch`` in order: (n, 2) int64, columns (data set, row)."""
        drawn = []
        for index, (part, rate) in enumerate(zip(self.parts, self._rates, strict=True)):
            start, stop = int(epoch * rate), int((epoch + 1) * rate)
            rows = self._stream(part, start, stop)
            drawn.append(np.stack([np.full_like(rows, index), rows], axis=1))
        pairs = np.concatenate(drawn)
        return pairs[_permutation(len(pairs), self.seed, "epoch", int(epoch))]

    def size(self, epoch: int) -> int:
        """Number of samples in ``epoch``."""
        return sum(self.counts(epoch).values())

    def counts(self, epoch: int) -> dict[str, int]:
        """Samples drawn from each data set in ``epoch``."""
        return {
            part.name: int((epoch + 1) * rate) - int(epoch * rate)
            for part, rate in zip(self.parts, self._rates, strict=True)
        }

    def table(self, epoch: int = 0) -> str:
        """Readable table of sizes, weights and the realised counts of ``epoch``.

        ``counted as`` is what a data set was resampled to, its own size otherwise.
        """
        counts = self.counts(epoch)
        rows = [
            ("domain", "data set", "samples", "counted as", "weight", f"in epoch {epoch}", "share")
        ]
        total = sum(counts.values())
        for part in self.parts:
            drawn = counts[part.name]
            share = f"{drawn / total:.1%}" if total else "-"
            sizes = (f"{part.size:,}", f"{part.resample or part.size:,}")
            rows.append((part.domain, part.name, *sizes, f"{part.weight:g}", f"{drawn:,}", share))
        rows.append(("all", "", f"{sum(p.size for p in self.parts):,}", "", "", f"{total:,}", ""))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = []
        for row in rows:
            text = [cell.ljust(w) for cell, w in zip(row[:2], widths[:2], strict=True)]
            text += [cell.rjust(w) for cell, w in zip(row[2:], widths[2:], strict=True)]
            lines.append("  ".join(text).rstrip())
        return "\n".join(lines)

    def _stream(self, part: Part, start: int, stop: int) -> np.ndarray:
        """Positions ``start`` up to ``stop`` of the data set's endless stream of permutations."""
        pieces = [np.empty(0, dtype=np.int64)]
        position = start
        while position < stop:
            turn, offset = divmod(position, part.size)
            order = _permutation(part.size, self.seed, part.domain, part.name, turn)
            pieces.append(order[offset : offset + stop - position])
            position += len(pieces[-1])
        return np.concatenate(pieces)


def _permutation(size: int, *key: object) -> np.ndarray:
    """A permutation of ``range(size)``, (size,) int64, that depends on ``key`` only.

    Sorted raw Philox words: unlike ``Generator.permutation``, whose algorithm numpy may change,
    the same in every numpy version.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(size)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)
