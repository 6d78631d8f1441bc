"""The paper's rows by their names, from its printed tables alone."""

import importlib.resources
import json
from pathlib import Path

from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.types import Measured, Row, Score

EXPERIMENTS = Path(__file__).parents[2] / "configs/experiments"
CLAIMS = EXPERIMENTS / "claims.yaml"
TINY = {name: [name] for name in ("general", "document", "biomedicine")}
_NAMES = {
    "2": "llava-1.5-official llava-med-official llava-1.5-1-0-0 llava-doc-0-1-0 llava-med-0-0-1 "
    "llava-mix-1-1-0 llava-mix-1-0-1 llava-mix-1-1-1 llava-mix-1-2-0 llava-mix-1-2-1 "
    "llava-mix-x2-1-1-1 llava-mole-1-1-0 llava-mole-1-1-1 llava-mole-1-2-0 llava-mole-1-2-1",
    "3": "llava-mix-1-0-r32 llava-mix-1-1-r32 llava-mix-1-0-r64 llava-mix-1-1-r64 "
    "llava-mix-1-0-r96 llava-mix-1-1-r96 llava-mix-1-0-r128 llava-mix-1-1-r128 "
    "llava-mole-1-1-r32 llava-mole-1-1-r128",
    "4": "llava-mole-k2 llava-mole-k3 llava-mole-k5 llava-mole-k8 llava-mole-k16",
    "5": "llava-mix-1-0-1 llava-mole-dense-k2 llava-mole-sparse-k2 llava-mix-1-1-1 "
    "llava-mole-dense-k3 llava-mole-sparse-k3",
}


def printed_tables():
    """What ``tables.json`` holds."""
    package = importlib.resources.files("llava_mole.eval.paper")
    return json.loads(package.joinpath("tables.json").read_text("utf-8"))


def paper_rows():
    """Tables 2 to 5, and the controls without numbers."""
    tables, rows = printed_tables(), []
    for table, names in _NAMES.items():
        lines = zip(names.split(), tables[f"table{table}"]["rows"], strict=True)
        for number, (name, line) in enumerate(lines, start=1):
            scores = {c: v for c, v in line["scores"].items() if isinstance(v, int | float)}
            kind = {"llava-1.5-official": "evaluated", "llava-med-official": "quoted"}
            rows.append(Row(table, number, name, name.upper(), scores, kind.get(name, "trained")))
    for file in sorted((EXPERIMENTS / "controls").glob("*.yaml")):
        rows.append(Row("controls", None, file.stem, file.stem.upper(), {}, "trained"))
    return rows


def ablation_rows():
    """The folder ``ablations``, by its files' names."""
    files = sorted((EXPERIMENTS / "ablations").glob("*.yaml"))
    return [Row("ablations", None, f.stem, f.stem.upper(), {}, "trained") for f in files]


def rate_rows():
    """The folders ``rates``, ``length`` and ``frozen``, by their files' names."""
    files = [
        file
        for folder in ("rates", "length", "frozen")
        for file in (EXPERIMENTS / folder).glob("*.yaml")
    ]
    return [Row(f.parent.name, None, f.stem, f.stem.upper(), {}, "trained") for f in sorted(files)]


def beyond_rows():
    """The folder ``beyond``, as it is read."""
    return [item.row for item in read_rows(EXPERIMENTS) if item.row.table == "beyond"]


def measured(scores, half=3.0, extras=None, routing=None):
    """A row's results from ``{seed: {column: value}}``, every interval ± ``half``."""
    return Measured(
        {
            seed: {c: Score(v, v - half, v + half, 200) for c, v in columns.items()}
            for seed, columns in scores.items()
        },
        extras or {},
        routing or {},
    )
