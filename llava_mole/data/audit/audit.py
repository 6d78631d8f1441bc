"""Every record looked at before training starts, so that no run dies of one at hour nine.

The structure was checked when the file was converted. Here each image is looked for (or decoded),
and, given an encoder, each sample's tokens are counted to see that its answer fits. What is wrong
is listed by file, line, id and reason; then ``fail`` stops, or ``skip`` leaves those records out:
the same ones each time, none replaced by another.

Two million rows stay a few numbers each: what is found is kept in arrays and files, see
`SetAudit`, and is there for the next run with the same settings, see ``audit_cache``.
"""

import dataclasses
import itertools
import os
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from llava_mole.data.audit.cache import AuditCache
from llava_mole.data.audit.look import Block, Look
from llava_mole.data.audit.problems import Problems
from llava_mole.data.audit.set_audit import BAD, SetAudit
from llava_mole.data.prepared.recordset import RecordSet
from llava_mole.data.workers import mapped

if TYPE_CHECKING:
    from llava_mole.data.tokens.encode import Encoder

SHOWN = 5
# Rows of one task of a process, and what a row costs in seconds without and with a look at tokens
# and pixels. Processes are not worth their start for less than `_ALONE` seconds.
_BLOCK = 4000
_SMALL_BLOCK = 250
_COST, _COST_TOKENS, _COST_PIXELS = 5e-5, 5e-4, 1e-2
_ALONE = 6.0
# Blocks that a process looks at before it maps the tables anew.
_REMAP = 50


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        sets: data set by data set.
    """

    sets: list[SetAudit]

    @property
    def keep(self) -> list[np.ndarray]:
        """For each data set, the rows that are good, (n,) int64 ascending."""
        return [found.keep for found in self.sets]

    @property
    def lengths(self) -> list[np.ndarray | None]:
        """For each data set, tokens of its good rows, (n,) int32; None without an encoder."""
        return [found.lengths for found in self.sets]

    @property
    def num_images(self) -> list[np.ndarray]:
        """For each data set, images of its good rows, (n,) int16."""
        return [found.num_images for found in self.sets]

    @property
    def problems(self) -> Problems:
        """All bad records, data set by data set; first those that were no records at all."""
        return sum((found.problems for found in self.sets), Problems())

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """Good records by ``(data set, source)``, bad ones under the source ``"(bad)"``."""
        counts = {}
        for found in self.sets:
            for name, source in found.sources.items():
                if source.records:
                    counts[found.name, name] = source.records
            if found.problems:
                counts[found.name, BAD] = len(found.problems)
        return counts

    @property
    def shortened(self) -> dict[str, int]:
        """Samples whose last turns are left out because they don't fit, by data set."""
        return {found.name: found.shortened for found in self.sets if found.shortened}

    @property
    def notes(self) -> dict[tuple[str, str], tuple[int, str]]:
        """Peculiar images by ``(data set, note)``: how many, and where one is."""
        return {
            (found.name, note): value for found in self.sets for note, value in found.notes.items()
        }

    @property
    def duplicates(self) -> dict[tuple[str, str], int]:
        """Records that repeat an earlier one of their data set, by ``(data set, source)``."""
        return {
            (found.name, name): source.duplicates
            for found in self.sets
            for name, source in found.sources.items()
            if source.duplicates
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the problems as JSONL, one a line, replacing ``path`` in one step."""
        self.problems.write(path)

    def raise_if_bad(self, report: str | os.PathLike[str] | None = None) -> None:
        """Raises a ValueError with the first reasons and the count if there is any problem."""
        problems = self.problems
        if not problems:
            return
        first = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
        more = len(problems) - SHOWN
        rest = f"\n  and {more:,} more" + (f", all listed in {report}" if report else "")
        raise ValueError(
            f"{len(problems):,} bad record(s) of {sum(self.counts.values()):,}:\n{first}"
            f"{rest if more > 0 else ''}\nRepair or remove them, or leave them out with "
            "on_bad_record: skip (--on-bad-record skip)."
        )


def audit(
    sets: Sequence[RecordSet],
    *,
    encoder: "Encoder | None" = None,
    check_images: str = "exists",
    num_workers: int = 0,
    progress: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    reuse: bool = False,
) -> Audit:
    """Looks at every record of ``sets`` and remembers what it found.

    Args:
        sets: open data sets.
        encoder: to find samples that don't fit; ``None`` leaves that out.
        check_images: ``exists`` (a stat each) or ``decode``.
        num_workers: processes that look, where there is enough for several; 0 and 1 mean this one.
        progress: whether to show a progress bar.
        cache_dir: where what was found is kept; default ``~/.cache/llava_mole``.
        reuse: whether an earlier audit with the same settings will do, where those images that
            were bad still are. Other images may have changed since.

    Raises:
        ValueError: a prepared folder is damaged, or a worker process died.
    """
    cache = AuditCache(cache_dir, encoder, check_images)
    done = [cache.load(records) if reuse else None for records in sets]
    todo = [index for index, found in enumerate(done) if found is None]
    if todo:
        chosen = [sets[index] for index in todo]
        fresh = _look_at_all(chosen, encoder, check_images, num_workers, progress, cache)
        for index, found in zip(todo, fresh, strict=True):
            done[index] = found
    return Audit(done)


def enforce(
    result: Audit,
    sets: Sequence[RecordSet],
    on_bad_record: str,
    max_bad_fraction: float,
    report: str | os.PathLike[str] | None = None,
) -> None:
    """Acts on what an audit found, writing the report first if there is something to report.

    Args:
        result: of `audit` on ``sets``.
        sets: the audited sets.
        on_bad_record: ``fail`` or ``skip``.
        max_bad_fraction: under ``skip``, the largest bearable share of a data set.
        report: JSONL file for the problems.

    Raises:
        ValueError: ``fail`` and a bad record; ``skip`` and too many of them; or a data set of
            which nothing is left.
    """
    if result.problems and report is not None:
        result.write(report)
    if on_bad_record == "fail":
        result.raise_if_bad(report)
    for records, found in zip(sets, result.sets, strict=True):
        bad = len(found.problems)
        total = len(found.keep) + bad
        if found.bad_fraction > max_bad_fraction:
            raise ValueError(
                f"data set {records.name!r}: {bad:,} of {total:,} records are bad "
                f"({found.bad_fraction:.1%}), more than max_bad_fraction {max_bad_fraction:.1%}; "
                f"the first: {found.problems[0]}. Look at the image root and the file, or raise "
                "max_bad_fraction."
            )
        if not len(found.keep) and records.weight > 0:
            raise ValueError(
                f"data set {records.name!r}: no record to train on; check its file or remove it"
            )


def _look_at_all(
    sets: Sequence[RecordSet],
    encoder: "Encoder | None",
    check_images: str,
    num_workers: int,
    progress: bool,
    cache: AuditCache,
) -> list[SetAudit]:
    """What is found in each of ``sets``, saved in ``cache``."""
    for records in sets:
        records.verify()
    decodes = check_images == "decode"
    counts = [encoder is not None and records.lengths != encoder.fingerprint for records in sets]
    block = _SMALL_BLOCK if decodes or any(counts) else _BLOCK
    tasks = [
        [
            (index, start, min(start + block, len(records)))
            for start in range(0, len(records), block)
        ]
        for index, records in enumerate(sets)
    ]
    seconds = sum(
        len(records) * (_COST + _COST_TOKENS * tokens + _COST_PIXELS * decodes)
        for records, tokens in zip(sets, counts, strict=True)
    )
    done = []
    with (
        mapped(
            _Looks(sets, encoder, check_images),
            itertools.chain(*tasks),
            num_workers if seconds > _ALONE else 1,
            encoder.parts if encoder else (),
        ) as blocks,
        tqdm(
            total=sum(map(len, sets)), desc="checking records", unit="rec", disable=not progress
        ) as bar,
    ):
        for records, own in zip(sets, tasks, strict=True):
            with cache.tally(records) as entry:
                for found in itertools.islice(blocks, len(own)):
                    entry.tally.add(found)
                    bar.update(len(found.keep))
                done.append(entry.save())
    return done


class _Looks:
    """Looks at rows of any of ``sets``; opens their tables in the process that calls it."""

    def __init__(
        self, sets: Sequence[RecordSet], encoder: "Encoder | None", check_images: str
    ) -> None:
        # Without their problems, which would travel to every process.
        self.bare = [dataclasses.replace(records, problems=()) for records in sets]
        self.encoder, self.check_images = encoder, check_images
        self.opened: dict[int, Look] = {}
        self.blocks = 0

    def __getstate__(self) -> dict:
        return {**self.__dict__, "opened": {}}

    def __call__(self, task: tuple[int, int, int]) -> Block:
        """The block of rows (index into sets, start, stop)."""
        index, start, stop = task
        self.blocks += 1
        if self.blocks % _REMAP == 0:
            # What was read of a mapped file counts as this process's memory until it is unmapped.
            self.opened.clear()
            self.bare = pickle.loads(pickle.dumps(self.bare))
        if index not in self.opened:
            self.opened[index] = Look(self.bare[index], self.encoder, self.check_images)
        return self.opened[index](start, stop)
