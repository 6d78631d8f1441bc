"""What runs trained on one domain score on every benchmark, and what a mixture of all loses.

Read from the ``results.json`` of ``llava-mole eval``; nothing is asked again. Intervals of
differences treat the two runs' answers as independent. They answer the same questions, so the true
intervals are narrower.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_mole.eval.results import RESULTS, lines_of
from llava_mole.eval.scores import Estimate

MIX = "mixture"
# How fast a run answers does not change what it answers.
_FREE = ("batch_size",)


@dataclass(frozen=True)
class Transfer:
    """Scores in per cent of every run on every benchmark.

    Attributes:
        runs: names of the single-domain runs.
        columns: benchmarks, or parts of those that have no total.
        scores: run's name to a score for each column; the mixture's under `MIX`.
        folders: run's name to where it was read.
    """

    runs: tuple[str, ...]
    columns: tuple[str, ...]
    scores: dict[str, tuple[Estimate, ...]]
    folders: dict[str, str]

    @property
    def best(self) -> tuple[str, ...]:
        """For each column, the single-domain run that scores highest."""
        return tuple(
            max(self.runs, key=lambda name: self.scores[name][column].value)
            for column in range(len(self.columns))
        )

    def loss(self, run: str) -> tuple[Estimate, ...]:
        """The mixture's score minus that of ``run``, for each column; below 0 where it loses.

        Raises:
            ValueError: there is no mixture.
        """
        if MIX not in self.scores:
            raise ValueError("no mixture to compare with; give its run with --mix")
        return tuple(
            _difference(mixed, single)
            for mixed, single in zip(self.scores[MIX], self.scores[run], strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values: dict[str, Any] = {
            "runs": {name: self.folders[name] for name in self.scores},
            "columns": list(self.columns),
            "scores": {name: _plain(row) for name, row in self.scores.items()},
            "best": list(self.best),
        }
        if MIX in self.scores:
            values["mixture_minus_single"] = {n: _plain(self.loss(n)) for n in self.runs}
        return values


def read_transfer(runs: Mapping[str, str], mix: str | None = None) -> Transfer:
    """Reads the results of every run.

    Args:
        runs: domain that a run was trained on, to its run directory (or the folder that
            ``llava-mole eval --output`` wrote).
        mix: the run on the mixture of all.

    Raises:
        ValueError: a single run, results that are missing or can't be read, or runs that answered
            different questions or were asked differently.
    """
    if len(runs) < 2:
        raise ValueError("--runs: a transfer matrix takes two runs or more; write NAME=RUN_DIR")
    if MIX in runs:
        raise ValueError(f"--runs {MIX}=…: give the mixture's run with --mix")
    folders = {**runs, **({} if mix is None else {MIX: mix})}
    files = {name: _file(name, Path(folder)) for name, folder in folders.items()}
    found = {name: _benchmarks(name, file) for name, file in files.items()}
    first = next(iter(found))
    for name, benchmarks in found.items():
        _compare(first, found[first], files[first], name, benchmarks, files[name])
    labels = list(found[first])
    scores, columns = {}, ()
    for name, benchmarks in found.items():
        row = {k: v for label in labels for k, v in _columns(label, benchmarks[label]).items()}
        columns = tuple(row)
        scores[name] = tuple(row.values())
    return Transfer(tuple(runs), columns, scores, {name: str(f) for name, f in folders.items()})


def _file(name: str, folder: Path) -> Path:
    for file in (folder / "eval" / RESULTS, folder / RESULTS):
        if file.is_file():
            return file
    option = "--mix" if name == MIX else f"--runs {name}="
    raise ValueError(
        f"{option} {folder}: no eval/{RESULTS} there; score it with 'llava-mole eval --model-path "
        f"{folder} --benchmarks …'"
    )


def _benchmarks(name: str, file: Path) -> dict[str, dict[str, Any]]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        benchmarks = values["benchmarks"]
        for entry in benchmarks.values():
            entry["lines"] = lines_of(entry)
            entry["settings"] = {k: v for k, v in entry["settings"].items() if k not in _FREE}
            entry["questions"] = int(entry["questions"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: not the results of 'llava-mole eval' ({type(error).__name__}: {error}); "
            f"score {name!r} again"
        ) from None
    if not benchmarks:
        raise ValueError(f"{file}: holds no benchmark; score {name!r} again")
    return benchmarks


def _compare(first: str, one: dict, file: Path, name: str, other: dict, other_file: Path) -> None:
    """Raises ValueError unless two runs were asked the same questions in the same way."""
    for label in [*one, *other]:
        if label not in one or label not in other:
            lacking, at = (first, file) if label not in one else (name, other_file)
            having = name if label not in one else first
            raise ValueError(
                f"{at}: {lacking!r} was not scored on {label}, as {having!r} was; score it with "
                "'llava-mole eval' on the same benchmarks"
            )
    for label in one:
        for key in ("questions", "settings"):
            if one[label][key] != other[label][key]:
                raise ValueError(
                    f"{other_file}: {label} of {name!r} has other {key} than {first!r} in {file} "
                    f"({other[label][key]} and {one[label][key]}); score both in the same way"
                )


def _columns(label: str, entry: dict[str, Any]) -> dict[str, Estimate]:
    """A benchmark's total, or its parts where it has none."""
    total = [line for line in entry["lines"] if line.kind == "total"]
    if total:
        return {label: total[0].score}
    return {f"{label} {line.name}": line.score for line in entry["lines"] if line.kind == "part"}


def _difference(one: Estimate, other: Estimate) -> Estimate:
    """``one`` minus ``other``, half-widths added in quadrature."""
    value = one.value - other.value
    down = math.hypot(one.value - one.low, other.high - other.value)
    up = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - down, value + up)


def _plain(row: tuple[Estimate, ...]) -> list[dict[str, float]]:
    return [{"value": e.value, "low": e.low, "high": e.high} for e in row]
