"""A scale's results: one JSON line a run, small, free of machine paths, fit to be committed."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llava_mole.files import replace_text
from llava_mole.reproduce.base import base_of, refuse_another_base
from llava_mole.reproduce.rows import RowFile
from llava_mole.reproduce.runs import Run, summary
from llava_mole.reproduce.types import Measured, Score

# Bytes of a line.
LARGEST = 2000
_KEYS = ("hash", "scale", "rows", "seed", "config", "scores")
_OBJECTS = ("config", "scores", "by_task", "seconds", "routing", "stage_1", "versions")


class Store:
    """The lines of one scale's file, by run hash.

    Args:
        path: JSONL file; need not be there yet.
        scale: name of the scale.

    Raises:
        ValueError: a line that is none, of another scale or base model, or there twice; names file
            and line.
    """

    def __init__(self, path: Path, scale: str) -> None:
        self.path = path
        self.scale = scale
        self.lines: dict[str, dict[str, Any]] = {}
        self.reread()

    def get(self, run: Run) -> dict[str, Any] | None:
        """The results of ``run``, if they are there.

        Raises:
            ValueError: a line of its hash that was measured with another config, or has a score
                that is none of its columns.
        """
        line = self.lines.get(run.hash)
        if line is not None and line["config"] != as_json(summary(run)):
            raise ValueError(
                f"{self.path}: the line of {run.name} bears its hash and another config "
                f"({line['config']}, now {summary(run)}); remove the line to run it anew"
            )
        for column in line["scores"] if line is not None else ():
            if column not in run.columns:
                raise ValueError(
                    f"{self.path}: the line of {run.name} has a score of {column!r}, and its run "
                    f"has {', '.join(run.columns)}; remove the line to run it anew"
                )
        return line

    def add(self, line: Mapping[str, Any]) -> None:
        """Writes a run's line: all lines, sorted, in one step.

        Raises:
            ValueError: a line that is too long to be kept, of another base model than those that
                are there, or whose hash is there with another config.
        """
        line = as_json(line)
        if (size := len(text_of(line).encode())) > LARGEST:
            raise ValueError(
                f"{self.path}: the line of {line['rows'][0]} has {size} bytes, and the most is "
                f"{LARGEST}; give the row, its domains or its benchmarks shorter names"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.path):
            # Another process may have written since.
            self.reread()
            refuse_another_base(line, self.lines.values())
            before = self.lines.get(line["hash"])
            if before is not None and before["config"] != line["config"]:
                raise ValueError(
                    f"{self.path}: hash {line['hash']} is there with another config; remove the "
                    "line that is wrong"
                )
            self.lines[line["hash"]] = line
            ordered = sorted(
                self.lines.values(), key=lambda one: (one["rows"][0], one["seed"], one["hash"])
            )
            replace_text(self.path, "".join(f"{text_of(one)}\n" for one in ordered))

    def refuse_another_base(self, runs: Sequence[Run]) -> None:
        """Raises ValueError where ``runs`` would start from another base model than the lines."""
        start = {}
        for run in runs:
            if run.config is not None:
                model, own = run.config.model, run.stage_1 is not None
                start[model.language_model, None if own else model.projector, own] = run
        for run in start.values():
            coming = {"rows": run.rows, "seed": run.seed, "config": summary(run)}
            try:
                refuse_another_base({**coming, "base": base_of(run)}, self.lines.values())
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}") from None

    def stale(self, runs: Sequence[Run]) -> list[str]:
        """Lines of rows and seeds of ``runs`` that were measured with another config, in words."""
        now = {(name, run.seed): run for run in runs for name in run.rows}
        found = []
        for key, line in self.lines.items():
            for name in line["rows"]:
                run = now.get((name, line["seed"]))
                if run is not None and run.hash != key:
                    found.append(
                        f"{name}, seed {line['seed']}: {self.path} has results of another config "
                        f"({_differences(line['config'], as_json(summary(run)))}); left out"
                    )
                    break
        return found

    def reread(self) -> None:
        """Takes in what other processes have written since."""
        self.lines = {}
        if not self.path.is_file():
            return
        for number, text in enumerate(self.path.read_bytes().splitlines(), start=1):
            place = f"{self.path}:{number}"
            line = _line(text, place)
            if line["scale"] != self.scale:
                raise ValueError(
                    f"{place}: results of scale {line['scale']!r} in a file of scale "
                    f"{self.scale!r}; scales are never mixed: give each its own file"
                )
            if line["hash"] in self.lines:
                raise ValueError(f"{place}: run {line['hash'][:8]} stands here twice; remove one")
            try:
                refuse_another_base(line, self.lines.values())
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None
            self.lines[line["hash"]] = line


def _line(text: bytes, place: str) -> dict[str, Any]:
    """One line of the file; raises ValueError for what no run can have written."""
    try:
        line = json.loads(text)
    except ValueError:
        line = None
    if not isinstance(line, dict):
        raise ValueError(f"{place}: not a line of results; remove it")
    if missing := [key for key in _KEYS if key not in line]:
        raise ValueError(f"{place}: no {missing[0]!r}, so no line of results; remove it")
    for key in _OBJECTS:
        value = line.get(key)
        if not isinstance(value, dict) and (value is not None or key in _KEYS):
            raise ValueError(f"{place}: {key} is {value!r}, no object; remove the line")
    _check_scores(line["scores"], place)
    _check_figures(line, place)
    return line


def _check_scores(scores: Mapping[str, Any], place: str) -> None:
    """Raises ValueError for scores that no run can have."""
    for column, score in scores.items():
        try:
            plausible = score["low"] - 1e-6 <= score["value"] <= score["high"] + 1e-6
            plausible = plausible and isinstance(score["questions"], int)
        except (KeyError, TypeError):
            plausible = False
        if not plausible:
            raise ValueError(f"{place}: {column} is {score!r}, no score; remove the line")


def _check_figures(line: Mapping[str, Any], place: str) -> None:
    """Raises ValueError for other figures that no run can have."""
    key, rows, seed = line["hash"], line["rows"], line["seed"]
    if not isinstance(key, str):
        raise ValueError(f"{place}: hash is {key!r}, no hash; remove the line")
    if not isinstance(rows, list) or not rows or not all(isinstance(name, str) for name in rows):
        raise ValueError(f"{place}: rows is {rows!r}, no list of rows' names; remove the line")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"{place}: seed is {seed!r}, no seed; remove the line")
    load = (line.get("routing") or {}).get("load") or {}
    if not isinstance(load, dict) or not all(isinstance(one, list) for one in load.values()):
        raise ValueError(f"{place}: routing.load is {load!r}, no experts' load; remove the line")
    for key, figure in _extras(line).items():
        if isinstance(figure, bool) or not isinstance(figure, int | float):
            raise ValueError(f"{place}: {key} is {figure!r}, no number; remove the line")


def measured(store: Store, rows: Sequence[RowFile], runs: Sequence[Run]) -> dict[str, Measured]:
    """What each row was measured to have, from the lines of exactly the runs it resolves to."""
    found = {}
    for item in rows:
        scores: dict[int, dict[str, Score]] = {}
        extras: dict[int, dict[str, float]] = {}
        routing: dict[int, dict[str, Any]] = {}
        for run in runs:
            line = store.get(run) if item.row.name in run.rows else None
            if line is not None:
                scores[run.seed] = {c: Score(**score) for c, score in line["scores"].items()}
                extras[run.seed] = {key: float(value) for key, value in _extras(line).items()}
                if line.get("routing"):
                    routing[run.seed] = line["routing"]
        if scores:
            found[item.row.name] = Measured(scores, extras, routing)
    return found


def text_of(line: Mapping[str, Any]) -> str:
    """The line as it stands in the file."""
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values as they come back from a line."""
    return json.loads(json.dumps(values))


def _extras(line: Mapping[str, Any]) -> dict[str, Any]:
    """The figures beside the scores that a line has."""
    values = {key: line.get(key) for key in ("parameters", "saved_bytes", "peak_bytes", "steps")}
    seconds = line.get("seconds") or {}
    values["seconds"] = seconds.get("train")
    values["eval_seconds"] = seconds.get("eval")
    values["stage_1_loss"] = (line.get("stage_1") or {}).get("loss")
    routing = line.get("routing") or {}
    values |= {key: routing.get(key) for key in ("mutual_information", "kind_information")}
    return {key: value for key, value in values.items() if value is not None}


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds the file's lock, which the system frees when its holder ends, however that may be."""
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changed = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changed += [
                f"{key}.{inner}: {old.get(inner)!r} -> {new.get(inner)!r}"
                for inner in sorted({*old, *new})
                if old.get(inner) != new.get(inner)
            ]
        elif old != new:
            changed.append(f"{key}: {old!r} -> {new!r}")
    return "; ".join(changed) or "model, data or questions"
