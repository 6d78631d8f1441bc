"""What a run's own records say about its routing while it trained.

``metrics.jsonl`` has each data set's load as a mean over layers, a line every logging step; a
checkpoint's ``progress.json`` has the tokens of the whole training so far, layer by layer.

Legend: T log lines, N MoLE layers, K experts.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llava_mole.analysis.routing.counts import shares
from llava_mole.train.callbacks import METRICS
from llava_mole.train.saving import PROGRESS

_LOAD = re.compile(r"routing/(.+)/expert_(\d+)")
_DIVERGENCE = "routing/jensen_shannon"
# The trainer's name for all data sets together.
_TOGETHER = "all"


@dataclass(frozen=True)
class Training:
    """A run's routing over its steps.

    Attributes:
        steps: T optimizer steps, ascending.
        load: data set to (T, K) float64, mean over layers of its share of tokens per expert since
            the line before; NaN where it had no token.
        entropy: data set to (T,) float64, 0 (one expert takes all) to 1 (even).
        jensen_shannon: (T,) float64 bits between data sets, mean over layers.
        total_step: of the checkpoint that ``total`` is from, None without one.
        total: data set to (N, K) float64, share of all its tokens up to that step.
    """

    steps: list[int]
    load: dict[str, torch.Tensor]
    entropy: dict[str, torch.Tensor]
    jensen_shannon: torch.Tensor
    total_step: int | None
    total: dict[str, torch.Tensor]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what a line doesn't have is null."""
        return {
            "steps": self.steps,
            "load": {name: _plain(values) for name, values in self.load.items()},
            "entropy": {name: _plain(values) for name, values in self.entropy.items()},
            "jensen_shannon": _plain(self.jensen_shannon),
            "total_step": self.total_step,
            "total": {name: _plain(values) for name, values in self.total.items()},
        }


def read_training(run: str | Path) -> Training | None:
    """What there is of it in a run's folder, or in that of one of its checkpoints.

    Args:
        run: the folder.

    Returns:
        None where no log line has routing: another adapter, or a run without ``metrics.jsonl``.

    Raises:
        ValueError: a metrics file that is not JSON lines.
    """
    run = Path(run)
    file = next((f for f in (run / METRICS, run.parent / METRICS) if f.is_file()), None)
    lines = {} if file is None else _lines(file)
    names = {found[1] for line in lines.values() for key in line if (found := _LOAD.fullmatch(key))}
    if not names:
        return None
    # In the order in which the run has them; each line has all that had tokens.
    order = [
        key.split("/", 1)[1]
        for line in lines.values()
        for key in line
        if key.startswith("samples/")
    ]
    shown = sorted(names - {_TOGETHER} or names, key=lambda n: [*order, n].index(n))
    steps = sorted(lines)
    rows = [lines[step] for step in steps]
    experts = 1 + max(int(f[2]) for row in rows for key in row if (f := _LOAD.fullmatch(key)))
    step, total = _total(run)
    return Training(
        steps=steps,
        load={
            name: torch.stack(
                [_series(rows, f"routing/{name}/expert_{k}") for k in range(experts)], dim=1
            )
            for name in shown
        },
        entropy={name: _series(rows, f"routing/{name}/entropy") for name in shown},
        jensen_shannon=_series(rows, _DIVERGENCE),
        total_step=step,
        total=total,
    )


def _lines(file: Path) -> dict[int, dict[str, Any]]:
    """Step to its line, of those that log routing; the last line of a running run may be cut."""
    found: dict[int, dict[str, Any]] = {}
    text = file.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not line.endswith("\n") or not line.strip():
            continue
        try:
            values = json.loads(line)
            step = values["step"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{file}:{number}: no log line of a run ({error})") from None
        if any(_LOAD.fullmatch(key) for key in values):
            found[int(step)] = values
    return found


def _series(rows: Sequence[dict[str, Any]], key: str) -> torch.Tensor:
    values = [row.get(key) for row in rows]
    return torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)


def _total(run: Path) -> tuple[int | None, dict[str, torch.Tensor]]:
    """The newest checkpoint's step and shares."""
    folders = [run, *run.glob("checkpoint-*")]
    numbered = [(int(f.name[11:]), f) for f in folders if re.fullmatch(r"checkpoint-\d+", f.name)]
    for step, folder in sorted(numbered, reverse=True):
        try:
            progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
            routed = progress["tokens_routed"]
            names = list(progress["samples_seen"])
        except (OSError, ValueError, KeyError):
            continue
        if routed:
            return step, dict(zip(names, shares(torch.tensor(routed)), strict=True))
    return None, {}


def _plain(values: torch.Tensor) -> list:
    """Nested lists with null for NaN."""
    if values.ndim == 1:
        return [None if math.isnan(value) else value for value in values.tolist()]
    return [_plain(row) for row in values]
