"""Samples that could be read before training and can't be any more: listed, counted, limited.

A rank learns of one in its data worker. All ranks learn of it at the step that would use it, and
so they go on, or stop, together.
"""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from llava_mole.data.audit.problems import line_of
from llava_mole.data.records import BadRecord, Problem

# The share of unreadable samples is taken of at least this many, so that the first one of a run
# is not half of all it has seen.
FLOOR = 1000

logger = logging.getLogger(__name__)


class BadSamples:
    """The unreadable samples of a run.

    Attributes:
        count: how often one was met since training began, resumed part included.
    """

    def __init__(self, report: Path, on_bad_record: str, max_bad_fraction: float):
        """Sets the policy.

        Args:
            report: JSONL file that each bad sample is listed in once, by rank 0.
            on_bad_record: ``fail`` or ``skip``, see `DataConfig`.
            max_bad_fraction: under ``skip``, the bearable share of the samples shown so far, or of
                the first `FLOOR`.
        """
        self.report = report
        self.on_bad_record = on_bad_record
        self.max_bad_fraction = max_bad_fraction
        self.count = 0

    def meet(self, problems: Sequence[Problem]) -> list[Problem]:
        """Lists the ``problems`` of all ranks in the report. Collective.

        Returns:
            Those of all ranks.

        Raises:
            BadRecord: the first of them, on every rank, under ``fail``.
        """
        everywhere = [list(problems)]
        if dist.is_initialized():
            everywhere = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(everywhere, list(problems))
        found = [problem for own in everywhere for problem in own]
        if found and (not dist.is_initialized() or dist.get_rank() == 0):
            for problem in add_to_report(self.report, found):
                logger.warning("unreadable: %s", problem)
        if found and self.on_bad_record == "fail":
            first = found[0]
            raise BadRecord(
                f"{first.reason} (it could be read before training began; give it back, or set "
                "on_bad_record: skip, and start the same command again)",
                first.file,
                first.line,
                first.id,
            )
        return found

    def count_among(self, problems: Sequence[Problem], seen: int) -> None:
        """Adds the training samples among ``problems`` to the count.

        Args:
            problems: of all ranks at this step.
            seen: samples shown since training began, this step's included.

        Raises:
            ValueError: there are too many by now.
        """
        self.count += len(problems)
        limit = self.max_bad_fraction * max(seen, FLOOR)
        if self.count > limit:
            raise ValueError(
                f"{self.count:,} of the {seen:,} samples shown so far could not be read, more than "
                f"max_bad_fraction {self.max_bad_fraction:.1%} bears (of at least {FLOOR:,} "
                f"samples); the last: {problems[-1]}. All are listed in {self.report}. Look at the "
                "disk and the image root and start the same command again: it resumes from the "
                "last checkpoint."
            )


def read_report(report: Path) -> list[Problem]:
    """What ``report`` lists; nothing where there is none."""
    if not report.exists():
        return []
    names = [field.name for field in dataclasses.fields(Problem)]
    with open(report, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [Problem(**{name: line[name] for name in names}) for line in lines]


def add_to_report(report: Path, problems: Sequence[Problem]) -> list[Problem]:
    """Appends those of ``problems`` whose record ``report`` does not list yet; returns them."""
    listed = {_place(problem) for problem in read_report(report)}
    added = []
    for problem in problems:
        if _place(problem) not in listed:
            listed.add(_place(problem))
            added.append(problem)
    if added:
        report.parent.mkdir(parents=True, exist_ok=True)
        with open(report, "a", encoding="utf-8") as file:
            file.writelines(map(line_of, added))
    return added


def _place(problem: Problem) -> tuple[str, str, int, str]:
    return problem.dataset, problem.file, problem.line, problem.id
