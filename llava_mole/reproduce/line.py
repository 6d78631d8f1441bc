"""From a run directory to its line of results."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from llava_mole.eval.benchmarks import BENCHMARKS, own_set
from llava_mole.eval.prompts import prompting
from llava_mole.eval.results import RESULTS, lines_of
from llava_mole.model.identity import weights_of
from llava_mole.reproduce.base import base_of
from llava_mole.reproduce.clock import MEASURED
from llava_mole.reproduce.runs import Run, summary
from llava_mole.reproduce.scales import Asked, Scale
from llava_mole.reproduce.stage1 import start_of
from llava_mole.reproduce.store import LARGEST, text_of
from llava_mole.train import rundir
from llava_mole.train.weights import ADAPTER_FILE, PROJECTOR_FILE

EVAL = "eval"
_PACKAGES = ("llava_mole", "torch", "transformers", "peft")


class NotReady(ValueError):
    """The run directory has no complete results yet; says what is missing."""


def line_of(run: Run, scale: Scale) -> dict[str, Any]:
    """The run's line.

    Raises:
        NotReady: it is not trained to the end, not asked everything, or trained with another config
            than the row's.
    """
    if run.config is not None:
        if not rundir.finished(run.folder):
            raise NotReady(f"{run.folder}: not trained to the end")
        if other := rundir.differences(run.config, run.folder):
            raise NotReady(f"{run.folder}: not the row's run, but one with {other[0]}")
    found = _results(run)
    scores, by_task = {}, {}
    for entry in found.values():
        for line in lines_of(entry):
            if line.kind == "dataset":
                by_task[f"{line.part}/{line.name}"] = round(line.score.value, 2)
            elif line.name in run.columns:
                scores[line.name] = {
                    "value": round(line.score.value, 4),
                    "low": round(line.score.low, 4),
                    "high": round(line.score.high, 4),
                    "questions": line.questions,
                }
    if missing := [name for name in run.columns if name not in scores]:
        raise NotReady(f"{run.folder / EVAL}: no column {missing[0]!r} in its results")
    measured = _json(run.folder / MEASURED) or {}
    ended = _json(run.folder / rundir.FINISHED) or {}
    trained = {"train": ended["seconds"]} if ended.get("seconds") is not None else {}
    line = {
        "hash": run.hash,
        "scale": scale.name,
        "rows": list(run.rows),
        "seed": run.seed,
        "config": summary(run),
        "scores": {name: scores[name] for name in run.columns},
        "by_task": by_task,
        "seconds": {**trained, **measured.get("seconds", {})},
        "steps": ended.get("steps"),
        "parameters": _trained(run.folder),
        "saved_bytes": measured.get("saved_bytes"),
        "peak_bytes": ended.get("peak_bytes"),
        "routing": measured.get("routing"),
        "base": base_of(run),
        "stage_1": None if run.config is None else start_of(run.config),
        "versions": _versions(run.folder),
    }
    for key in ("by_task", "routing"):
        # Details give way before a run has no results at all.
        if len(text_of(line)) > LARGEST:
            line[key] = None
    return line


def _results(run: Run) -> Mapping[str, Any]:
    """The benchmarks of ``results.json``, all of them, of the very weights that are there."""
    file = run.folder / EVAL / RESULTS
    values = _json(file)
    if values is None:
        raise NotReady(f"{file}: not there yet")
    if not isinstance(values, dict) or not {"model", "benchmarks"} <= set(values):
        raise NotReady(f"{file}: no results of 'llava-mole eval'")
    model, benchmarks = values["model"], values["benchmarks"]
    if run.config is not None and model.get("weights") != weights_of(run.folder):
        raise NotReady(f"{file}: of other weights than the run directory holds")
    if changed := [key for key in ("model_base", "load_4bit", "load_8bit") if model.get(key)]:
        raise NotReady(f"{file}: asked with {changed[0]}, which no row is")
    for asked in run.asked:
        if asked.label not in benchmarks:
            raise NotReady(f"{file}: {asked.label} was not asked yet")
        _refuse_another_prompting(asked, benchmarks[asked.label], file)
    return {asked.label: benchmarks[asked.label] for asked in run.asked}


def _refuse_another_prompting(asked: Asked, entry: Mapping[str, Any], file: Path) -> None:
    """Raises NotReady where a benchmark was asked in another style, or with another suffix."""
    benchmark = BENCHMARKS.get(asked.name) or own_set(asked.name)
    wanted = prompting(benchmark, asked.style, asked.suffix, asked.max_new_tokens).settings()
    given = entry.get("settings") or {}
    for key, value in wanted.items():
        if given.get(key) != value:
            raise NotReady(
                f"{file}: {asked.label} was asked with {key} {given.get(key)!r}, and the scale "
                f"asks with {value!r}"
            )


def _trained(folder: Path) -> int | None:
    """Trained numbers, projector included, as the saved files hold them."""
    total = 0
    for name in (ADAPTER_FILE, PROJECTOR_FILE):
        if (folder / name).is_file():
            with safe_open(folder / name, "pt") as file:
                for key in file.keys():  # noqa: SIM118
                    size = 1
                    for length in file.get_slice(key).get_shape():
                        size *= length
                    total += size
    return total or None


def _versions(folder: Path) -> dict[str, str]:
    values = _json(folder / rundir.VERSIONS) or rundir.versions()
    return {name: values["packages"].get(name) for name in _PACKAGES}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
