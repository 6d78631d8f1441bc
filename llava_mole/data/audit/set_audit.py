"""What an audit found in one data set: a few numbers a row, the rest counted by source."""

import dataclasses
from collections.abc import Sequence
from typing import IO

import numpy as np

from llava_mole.data.audit.look import Block, duplicates, merge_notes
from llava_mole.data.audit.problems import Problems, kind_of, line_of
from llava_mole.data.prepared.recordset import RecordSet
from llava_mole.data.records import Problem

BAD = "(bad)"
UNREAD = "(not a record)"
OTHERS = "(others)"
EXAMPLES = 3
# A source that every row names differently is no statistic.
MAX_SOURCES = 1000


@dataclasses.dataclass
class SourceAudit:
    """One source's share of a data set.

    Attributes:
        records: good ones.
        bad: bad ones.
        images: of the good ones; an image that several records show counts each time.
        text_only: good ones without an image.
        duplicates: good ones that repeat an earlier one: the same images and turns.
        tokens: shortest, median and longest of the good ones; None where none were counted.
    """

    records: int = 0
    bad: int = 0
    images: int = 0
    text_only: int = 0
    duplicates: int = 0
    tokens: tuple[int, int, int] | None = None


@dataclasses.dataclass
class KindAudit:
    """How many bad records of one kind, and the first of them as `Problem` shows them."""

    count: int = 0
    examples: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class SetAudit:
    """What an audit found in one data set of N rows.

    Attributes:
        name: the data set's.
        rows: N.
        keep: good rows, (n,) int64 ascending.
        lengths: tokens of each good row, (n,) int32; None without an encoder.
        num_images: images of each good row, (n,) int16.
        problems: all bad records: first those that were none, then by row.
        sources: by source.
        kinds: bad records by the name of their `Kind`.
        shortened: good rows whose last turns are left out.
        notes: peculiar images: how many, and where one is.
        repeated: the first duplicates: where, and of what.
    """

    name: str
    rows: int
    keep: np.ndarray
    lengths: np.ndarray | None
    num_images: np.ndarray
    problems: Problems
    sources: dict[str, SourceAudit]
    kinds: dict[str, KindAudit]
    shortened: int
    notes: dict[str, tuple[int, str]]
    repeated: list[tuple[str, str]]

    @property
    def bad_fraction(self) -> float:
        """Share of bad records among all that the files hold."""
        bad = len(self.problems)
        return bad / (bad + len(self.keep)) if bad else 0.0


class Tally:
    """Adds up the blocks of one data set, in order, in flat memory.

    Args:
        records: the data set; its own problems come first.
        lines: text file that the problems are written to.
        has_lengths: whether the blocks' lengths mean anything.
    """

    def __init__(self, records: RecordSet, lines: IO[str], has_lengths: bool) -> None:
        self.records, self.lines, self.has_lengths = records, lines, has_lengths
        self.names: dict[str, int] = {}
        self.blocks: list[Block] = []
        self.kinds: dict[str, KindAudit] = {}
        self.notes: dict[str, tuple[int, str]] = {}
        self.num_problems = self.shortened = 0
        self._write(
            dataclasses.replace(problem, dataset=records.name) for problem in records.problems
        )
        self.unread = self.num_problems

    def add(self, block: Block) -> None:
        """The next rows."""
        self._write(block.problems)
        self.shortened += block.shortened
        merge_notes(self.notes, block.notes)
        codes = np.array([self._code(name) for name in block.names], dtype=np.int32)
        self.blocks.append(
            dataclasses.replace(block, sources=codes[block.sources], problems=[], names=[])
        )

    def result(self, path: str) -> SetAudit:
        """All of it, the problems being in the file ``path``."""
        columns = {
            name: np.concatenate(
                [np.empty(0, kind), *(getattr(block, name) for block in self.blocks)]
            )
            for name, kind in (
                ("keep", bool),
                ("lengths", np.int32),
                ("num_images", np.int16),
                ("hashes", np.uint64),
                ("sources", np.int32),
            )
        }
        self.blocks = []
        mask, codes = columns["keep"], columns["sources"]
        keep = np.flatnonzero(mask).astype(np.int64, copy=False)
        lengths, num_images = columns["lengths"][keep], columns["num_images"][keep]
        again = duplicates(columns["hashes"][keep])
        sources = self._sources(codes[~mask], codes[keep], codes[keep[again]], num_images, lengths)
        repeated = []
        for row in again[:EXAMPLES]:
            first = np.flatnonzero(columns["hashes"][keep] == columns["hashes"][keep[row]])[0]
            repeated.append((self._place(keep[row]), self._place(keep[first])))
        return SetAudit(
            name=self.records.name,
            rows=len(mask),
            keep=keep,
            lengths=lengths if self.has_lengths else None,
            num_images=num_images,
            problems=Problems([(path, self.num_problems)]),
            sources=sources,
            kinds=self.kinds,
            shortened=self.shortened,
            notes=self.notes,
            repeated=repeated,
        )

    def _sources(
        self,
        bad: np.ndarray,
        good: np.ndarray,
        again: np.ndarray,
        num_images: np.ndarray,
        lengths: np.ndarray,
    ) -> dict[str, SourceAudit]:
        """Statistics by source from the source codes of rows, and good rows' images and tokens."""
        size = len(self.names)
        num_bad, num_again = np.bincount(bad, minlength=size), np.bincount(again, minlength=size)
        order = np.argsort(good, kind="stable")
        borders = np.searchsorted(good[order], np.arange(size + 1))
        sources = {}
        for name, code in self.names.items():
            rows = order[borders[code] : borders[code + 1]]
            tokens = None
            if self.has_lengths and len(rows):
                own = lengths[rows]
                tokens = (int(own.min()), int(np.median(own)), int(own.max()))
            sources[name] = SourceAudit(
                records=len(rows),
                bad=int(num_bad[code]),
                images=int(num_images[rows].sum(dtype=np.int64)),
                text_only=int((num_images[rows] == 0).sum()),
                duplicates=int(num_again[code]),
                tokens=tokens,
            )
        if self.unread:
            sources[UNREAD] = SourceAudit(bad=self.unread)
        return sources

    def _code(self, name: str) -> int:
        if name not in self.names and len(self.names) >= MAX_SOURCES:
            name = OTHERS
        return self.names.setdefault(name, len(self.names))

    def _place(self, row: np.integer) -> str:
        record = self.records.record(int(row))
        return f"{record.file}:{record.line}: record {record.id!r}"

    def _write(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            self.lines.write(line_of(problem))
            self.num_problems += 1
            kind = self.kinds.setdefault(kind_of(problem.reason).name, KindAudit())
            kind.count += 1
            if len(kind.examples) < EXAMPLES:
                kind.examples.append(str(problem))
