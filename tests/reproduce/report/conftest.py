"""Reports of made-up results at two scales, each written once."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from llava_mole.reproduce.claims import PAPER_COLUMNS
from llava_mole.reproduce.report import write
from tests.reproduce.paper_rows import (
    CLAIMS,
    EXPERIMENTS,
    TINY,
    ablation_rows,
    measured,
    paper_rows,
)

LABEL = "TINY SCALE: 50% <of> a model & three domains_; compares with nothing in the paper"
STAMP = {
    "command": 'llava-mole reproduce --all <&"\\$_%',
    "seeds": [0, 1, 2],
    "versions": {"torch": "2.13.0"},
    "config": {"llava-mole-1-1-1": "ab12cd34"},
}


def tiny_results():
    """Three seeds of all trained rows but one; half of Table 4; routers of three layers."""
    generator = np.random.default_rng(0)
    found = {}
    for row in [*paper_rows(), *ablation_rows()]:
        if row.kind != "trained" or row.name in ("llava-mix-1-2-1", "llava-mole-k8"):
            continue
        shift = 4.0 if "mole" in row.name else 0.0
        found[row.name] = measured(
            {
                seed: {name: float(50 + shift + generator.normal()) for name in TINY}
                for seed in range(3)
            },
            extras={s: _extras(row.name, s) for s in range(3)},
            routing={s: _routing(s) for s in range(3)} if "mole" in row.name else None,
        )
    return found


def _extras(name, seed):
    found = {
        "saved_bytes": 8e6 if "dense" in name else 6e6,
        "seconds": 10.0 + seed,
        "parameters": 12345.0,
    }
    return {**found, "mutual_information": 0.1 * seed} if "mole" in name else found


def _routing(seed):
    """Layer 0 is even, layer 1 has an idle expert, layer 2 one that rises with the seed."""
    layers = [[334, 333, 333], [500, 490, 10], [600 + seed, 200, 200 - seed]]
    return {"layers": [0, 1, 2], "load": dict.fromkeys(TINY, layers)}


def paper_results():
    """One seed of Table 2, a point above what is printed."""
    return {
        row.name: measured({42: {c: v + 1 for c, v in row.printed.items()}}, half=2.0)
        for row in paper_rows()
        if row.table == "2" and row.kind == "trained"
    }


@pytest.fixture(scope="session")
def claims_file(tmp_path_factory):
    """The shipped claims beside the shipped rows, without any scale's own files."""
    folder = tmp_path_factory.mktemp("configs") / "experiments"
    skip = shutil.ignore_patterns("tiny", "small", "tiny.yaml", "small.yaml", "paper.yaml")
    shutil.copytree(EXPERIMENTS, folder, ignore=skip)
    return folder / CLAIMS.name


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, claims_file):
    folder = tmp_path_factory.mktemp("tiny")
    scale = SimpleNamespace(name="tiny", columns=TINY, label=LABEL, more={})
    rows = [*paper_rows(), *ablation_rows()]
    write(scale, rows, tiny_results(), claims_file, folder, STAMP)
    return folder


@pytest.fixture(scope="session")
def paper(tmp_path_factory, claims_file):
    folder = tmp_path_factory.mktemp("paper")
    scale = SimpleNamespace(name="paper", columns=PAPER_COLUMNS, label="", shown=["VR"], more={})
    write(scale, paper_rows(), paper_results(), claims_file, folder, STAMP)
    return folder
