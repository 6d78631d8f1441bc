"""What was trained elsewhere is written down; what cannot be is named, and stops nothing."""

import pytest

from llava_mole.reproduce import status
from llava_mole.reproduce.line import NotReady
from llava_mole.reproduce.lock import held
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.runs import resolve_runs
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import select
from llava_mole.reproduce.store import Store
from tests.reproduce.test_store import line
from tests.reproduce.tiny_scale import write_experiments


@pytest.fixture
def world(tmp_path):
    experiments = write_experiments(tmp_path)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    selected = select(rows, names=["llava-mix-1-1-0"])
    runs = resolve_runs(scale, rows, selected, (0, 1, 2, 3))
    return runs, scale, Store(tmp_path / "results.jsonl", "tiny")


def test_a_run_that_cannot_be_written_down_leaves_the_others(world, monkeypatch):
    runs, scale, store = world
    for run in runs:
        run.folder.mkdir(parents=True)

    def line_of(run, _):
        if run.seed == 2:
            raise NotReady("not trained to the end")
        return line(run, base="bbbb" if run.seed == 1 else "aaaa")

    monkeypatch.setattr(status, "line_of", line_of)
    with held(runs[3].folder):
        found = {run.seed: why for run, why in status.collect(runs, scale, store)}
    assert set(found) == {0, 1}
    assert found[0] is None
    assert "never mixed" in found[1]
    assert [one["seed"] for one in store.lines.values()] == [0]
    assert [run.seed for run, _ in status.collect(runs, scale, store)] == [1, 3]
