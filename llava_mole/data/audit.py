"""Every record looked at before training starts, so that no run dies of one at hour nine.

The structure was checked when the file was converted. Here each image is looked for (or decoded),
and, given an encoder, each sample is tokenised to see that its answer fits. What is wrong is
listed by file, line, id and reason; then ``fail`` stops, or ``skip`` leaves those records out: the
same ones each time, none replaced by another.
"""

import collections
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from llava_mole.data.arrow import Problem, RecordSet
from llava_mole.data.images import ImageError, check_exists, load_image
from llava_mole.data.records import BadRecord, Record

SHOWN = 5
_BLOCK = 500


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        keep: for each data set, the rows that are good, (n,) int64 ascending.
        problems: all bad records, data set by data set; within one, those whose structure is broken
            come first.
        counts: records by ``(data set, source)``, bad ones under the source ``"(bad)"``.
        shortened: samples whose last turns are left out because they don't fit, by data set.
    """

    keep: list[np.ndarray]
    problems: list[Problem]
    counts: dict[tuple[str, str], int]
    shortened: dict[str, int]

    def table(self) -> str:
        """Counts by data set and source, as text."""
        width = max([len(f"{name}  {source}") for name, source in self.counts] or [0])
        lines = [
            f"{f'{name}  {source}'.ljust(width)}  {count:>10,}"
            for (name, source), count in self.counts.items()
        ]
        lines += [
            f"{name}: {count:,} sample(s) too long, their last turns are left out"
            for name, count in self.shortened.items()
        ]
        return "\n".join(lines)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the problems as JSONL, one a line, replacing ``path`` in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # By process: all ranks may write the same report.
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(dataclasses.asdict(item)) + "\n" for item in self.problems)
        os.replace(partial, path)

    def raise_if_bad(self, report: str | os.PathLike[str] | None = None) -> None:
        """Raises a ValueError with the first reasons and the count if there is any problem."""
        if not self.problems:
            return
        first = "\n".join(f"  {problem}" for problem in self.problems[:SHOWN])
        more = len(self.problems) - SHOWN
        rest = f"\n  and {more:,} more" + (f", all listed in {report}" if report else "")
        raise ValueError(
            f"{len(self.problems):,} bad record(s) of {sum(self.counts.values()):,}:\n{first}"
            f"{rest if more > 0 else ''}\nRepair or remove them, or leave them out with "
            "on_bad_record: skip (--on-bad-record skip)."
        )


def audit(
    sets: Sequence[RecordSet],
    *,
    encode: Callable[[Record], object] | None = None,
    check_images: str = "exists",
    num_workers: int = 0,
    progress: bool = False,
) -> Audit:
    """Looks at every record of ``sets``.

    Args:
        sets: open data sets.
        encode: an `Encoder`, to find samples that don't fit; ``None`` leaves that out.
        check_images: ``exists`` (a stat each) or ``decode``.
        num_workers: threads.
        progress: whether to show a progress bar.
    """
    keep, problems = [], []
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    shortened: collections.Counter[str] = collections.Counter()
    with (
        ThreadPoolExecutor(max_workers=max(1, num_workers)) as pool,
        tqdm(total=sum(map(len, sets)), desc="checking records", disable=not progress) as bar,
    ):
        for records in sets:
            problems += records.problems
            look = _Look(records, encode, check_images)
            good = []
            for rows, found, by_source, short in pool.map(look, range(0, len(records), _BLOCK)):
                good.append(rows)
                problems += found
                counts.update({(records.name, source): n for source, n in by_source.items()})
                shortened[records.name] += short
                bar.update(len(rows) + len(found))
            keep.append(np.concatenate([np.empty(0, dtype=np.int64), *good]))
            if bad := len(records.problems) + len(records) - len(keep[-1]):
                counts[records.name, "(bad)"] += bad
    return Audit(keep, problems, dict(counts), {k: n for k, n in shortened.items() if n})


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
    for records, rows in zip(sets, result.keep, strict=True):
        total = len(records) + len(records.problems)
        bad = total - len(rows)
        if bad > max_bad_fraction * total:
            first = next(item for item in result.problems if item.dataset == records.name)
            raise ValueError(
                f"data set {records.name!r}: {bad:,} of {total:,} records are bad "
                f"({bad / total:.1%}), more than max_bad_fraction {max_bad_fraction:.1%}; the "
                f"first: {first}. Look at the image root and the file, or raise max_bad_fraction."
            )
        if not len(rows) and records.weight > 0:
            raise ValueError(
                f"data set {records.name!r}: no record to train on; check its file or remove it"
            )


class _Look:
    """Checks a block of one set's rows; each distinct image is looked at once."""

    def __init__(self, records: RecordSet, encode, check_images: str) -> None:
        self.records, self.encode = records, encode
        self.check = load_image if check_images == "decode" else check_exists
        self.known: dict[str, str | None] = {}

    def __call__(self, start: int) -> tuple[np.ndarray, list[Problem], collections.Counter, int]:
        rows, found, by_source, short = [], [], collections.Counter(), 0
        for row, record in enumerate(self.records.records(start, start + _BLOCK), start=start):
            try:
                for image in record.images:
                    if reason := self._image_problem(image):
                        raise record.bad(reason)
                encoded = self.encode(record) if self.encode else None
            except BadRecord as error:
                found.append(Problem.of(self.records.name, error))
                continue
            short += bool(encoded and encoded.dropped_turns)
            by_source[record.source] += 1
            rows.append(row)
        return np.asarray(rows, dtype=np.int64), found, by_source, short

    def _image_problem(self, image: str) -> str | None:
        if image not in self.known:
            try:
                self.check(image, self.records.image_root)
                self.known[image] = None
            except ImageError as error:
                self.known[image] = str(error)
        return self.known[image]
