"""``results.json``: every figure of an evaluation, with what it rests on."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_mole.eval.paper import PaperRow
from llava_mole.eval.scores import Estimate, Line, Scored
from llava_mole.eval.task import Task
from llava_mole.files import replace_json

RESULTS = "results.json"
# Questions not asked that are named in results and reports; all are in the answers.
NAMED = 20


def entry(
    task: Task,
    scored: Sequence[Scored],
    lines: Sequence[Line],
    settings: Mapping[str, Any],
    baselines: Mapping[str, Estimate],
) -> dict[str, Any]:
    """One benchmark's results as JSON values; scores in per cent.

    Args:
        task: what was asked.
        scored: its questions with answers and scores.
        lines: the result table.
        settings: how it was asked.
        baselines: name to score of what sees no image.
    """
    failed = [s for s in scored if s.answer.prediction is None]
    return {
        "benchmark": task.benchmark.name,
        "title": task.benchmark.title,
        "metrics": list(dict.fromkeys(rule.name for rule in task.benchmark.rules.values())),
        "settings": dict(settings),
        "questions": len(scored),
        "published_questions": published(task, scored),
        "not_asked": len(failed),
        "failed": [{"id": s.question.id, "error": s.answer.error} for s in failed[:NAMED]],
        "lines": [dataclasses.asdict(line) for line in lines],
        "baselines": {name: dataclasses.asdict(value) for name, value in baselines.items()},
        "notes": notes(task, scored),
    }


def published(task: Task, scored: Sequence[Scored]) -> int | None:
    """How many questions the benchmark has as published, in the parts that are there."""
    parts = {s.question.part for s in scored}
    counts = [task.benchmark.published.get(part) for part in parts]
    return None if None in counts else sum(counts)


def notes(task: Task, scored: Sequence[Scored]) -> list[str]:
    """What a reader must know before the figures."""
    remark = task.benchmark.remark([s.question for s in scored])
    found = [*task.benchmark.notes, *([remark] if remark else [])]
    if task.limit is not None:
        found.append(f"At most the first {task.limit:,} questions of each part.")
    whole = published(task, scored)
    if whole is not None and whole != len(scored):
        found.append(
            f"{len(scored):,} questions where the benchmark has {whole:,} as published: the "
            "figures are of these alone."
        )
    if failed := sum(s.answer.prediction is None for s in scored):
        found.append(f"{failed} question(s) could not be asked and count as 0; they are named.")
    return found


def lines_of(values: Mapping[str, Any]) -> list[Line]:
    """The lines of an `entry` again."""
    return [
        Line(
            **{
                **line,
                "score": Estimate(**line["score"]),
                "strict": None if line["strict"] is None else Estimate(**line["strict"]),
            }
        )
        for line in values["lines"]
    ]


def update(
    folder: Path,
    model: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Any]],
    row: PaperRow | None,
) -> dict[str, Any]:
    """Writes ``results.json`` with ``entries``, keeping other benchmarks' of the same model.

    Returns:
        All that is in it now.
    """
    file = folder / RESULTS
    model = json.loads(json.dumps(model))
    kept: dict[str, Any] = {}
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if before.get("model") == model:
            kept = before.get("benchmarks", {})
    values = {
        "model": model,
        "paper": None if row is None else dataclasses.asdict(row),
        "benchmarks": {**kept, **entries},
    }
    replace_json(file, values)
    return values
