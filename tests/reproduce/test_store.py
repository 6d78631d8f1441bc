"""The file of results: what it takes and what it refuses."""

import dataclasses
import json
from pathlib import Path

import pytest

from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.runs import resolve_runs, summary
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import select
from llava_mole.reproduce.store import Store, measured
from tests.reproduce.tiny_scale import write_experiments


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Rows, and the runs of two of them with two seeds."""
    experiments = write_experiments(tmp_path_factory.mktemp("store"))
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    selected = select(rows, names=["llava-mix-1-1-0", "llava-mole-1-1-0"])
    return rows, resolve_runs(scale, rows, selected, (0, 1))


def line(run, value=50.0, **values):
    score = {"value": value, "low": value - 5, "high": value + 5, "questions": 10}
    return {
        "hash": run.hash,
        "scale": "tiny",
        "rows": list(run.rows),
        "seed": run.seed,
        "config": summary(run),
        "scores": {"general": score},
        "seconds": {"train": 3.0, "eval": 1.0},
        "steps": 4,
        "parameters": 100,
        **values,
    }


def test_lines_are_kept_sorted_and_read_back(world, tmp_path):
    _, runs = world
    store = Store(tmp_path / "results.jsonl", "tiny")
    for run in reversed(runs):
        store.add(line(run))
    text = store.path.read_text()
    assert [json.loads(one)["seed"] for one in text.splitlines()] == [0, 1, 0, 1]
    again = Store(store.path, "tiny")
    assert all(again.get(run) == json.loads(json.dumps(line(run))) for run in runs)
    other = Store(tmp_path / "other.jsonl", "tiny")
    for run in runs:
        other.add(line(run))
    assert other.path.read_text() == text


def test_what_another_process_wrote_meanwhile_stays(world, tmp_path):
    _, runs = world
    first, second = (Store(tmp_path / "results.jsonl", "tiny") for _ in range(2))
    first.add(line(runs[0]))
    second.add(line(runs[1]))
    assert len(Store(first.path, "tiny").lines) == 2


ROUTING = {"mutual_information": 0.25, "kind_information": 0.5}


def test_every_row_of_a_run_has_its_scores(world, tmp_path):
    rows, runs = world
    store = Store(tmp_path / "results.jsonl", "tiny")
    for value, run in enumerate(runs):
        store.add(line(run, float(value), routing=ROUTING))
    found = measured(store, rows, runs)
    assert set(found) == {
        "llava-mix-1-1-0",
        "llava-mix-1-1-r32",
        "llava-mole-1-1-0",
        "llava-mole-1-1-r32",
        "llava-mole-k2",
    }
    assert found["llava-mole-k2"] == found["llava-mole-1-1-0"]
    assert {seed: s["general"].value for seed, s in found["llava-mole-k2"].scores.items()} == {
        0: 2.0,
        1: 3.0,
    }
    extras = found["llava-mole-k2"].extras[0]
    assert extras == {
        "parameters": 100.0,
        "steps": 4.0,
        "seconds": 3.0,
        "eval_seconds": 1.0,
        **ROUTING,
    }
    assert found["llava-mole-k2"].routing[1] == ROUTING


def test_a_row_without_routers_has_no_routing(world, tmp_path):
    rows, runs = world
    store = Store(tmp_path / "results.jsonl", "tiny")
    load = {"layers": [0], "load": {"general": [[400, 600]]}}
    for run in runs:
        mole = "llava-mole-1-1-0" in run.rows
        store.add(line(run, routing={**load, "seed": run.seed} if mole else None))
    found = measured(store, rows, runs)
    assert found["llava-mix-1-1-0"].routing == {}
    assert found["llava-mole-1-1-0"].routing == {seed: {**load, "seed": seed} for seed in (0, 1)}


def test_a_line_of_another_config_is_named_and_left_out(world, tmp_path):
    rows, runs = world
    old = {**line(runs[0]), "hash": "0" * 64}
    old["config"] = {**old["config"], "train": {**old["config"]["train"], "learning_rate": 0.5}}
    store = Store(tmp_path / "results.jsonl", "tiny")
    store.add(old)
    (said,) = store.stale(runs)
    assert "llava-mix-1-1-0, seed 0" in said
    assert "train.learning_rate: 0.5 -> 0.003" in said
    assert store.get(runs[0]) is None
    assert measured(store, rows, runs) == {}


def test_a_hash_with_another_config_is_refused(world, tmp_path):
    _, runs = world
    store = Store(tmp_path / "results.jsonl", "tiny")
    store.add({**line(runs[0]), "config": {"lambda": {"general": 9}}})
    with pytest.raises(ValueError, match="bears its hash and another config"):
        store.get(runs[0])
    with pytest.raises(ValueError, match=r"hash [0-9a-f]{64} is there with another config"):
        store.add(line(runs[0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"scale":"tiny"', '"scale":"small"'),
         r"results\.jsonl:1: results of scale 'small' in a file of scale 'tiny'"),
        (lambda text: text + text, r"results\.jsonl:2: run [0-9a-f]{8} stands here twice"),
        (lambda text: text[:-40], r"results\.jsonl:1: not a line of results"),
        (lambda text: text.replace('"scores"', '"points"'), r"results\.jsonl:1: no 'scores'"),
        (lambda text: "7\n", r"results\.jsonl:1: not a line of results"),
        (lambda text: text + "\udcff\n", r"results\.jsonl:2: not a line of results"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_this_scales_results_is_refused(world, tmp_path, change, message):
    _, runs = world
    store = Store(tmp_path / "results.jsonl", "tiny")
    store.add(line(runs[0]))
    changed = change(store.path.read_text())
    store.path.write_text(changed, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        Store(store.path, "tiny")


def test_a_line_stays_small(world, tmp_path):
    _, runs = world
    store = Store(tmp_path / "results.jsonl", "tiny")
    with pytest.raises(ValueError, match=r"has [23][0-9]{3} bytes"):
        store.add(line(runs[0], routing={"load": "x" * 2500}))
    assert not Path(store.path).exists()


def test_runs_and_scales_cross_process_borders(world):
    import pickle

    _, runs = world
    assert pickle.loads(pickle.dumps(runs[0])) == runs[0]
    assert dataclasses.asdict(runs[0])["seed"] == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rows", [], "rows is \\[\\], no list of rows' names"),
        ("rows", "llava", "rows is 'llava', no list of rows' names"),
        ("seed", "ten", "seed is 'ten', no seed"),
        ("seed", -4.5, "seed is -4.5, no seed"),
        ("steps", "x", "steps is 'x', no number"),
        ("seconds", 7, "seconds is 7, no object"),
        ("seconds", {"train": "long"}, "seconds is 'long', no number"),
        ("routing", [1], "routing is \\[1\\], no object"),
        ("routing", {"load": 3}, "routing.load is 3, no experts' load"),
        ("routing", {"load": {"general": 3}}, "routing.load is .*, no experts' load"),
        ("config", 5, "config is 5, no object"),
        ("config", None, "config is None, no object"),
        ("by_task", 7, "by_task is 7, no object"),
        ("hash", ["a"], "hash is \\['a'\\], no hash"),
    ],
)
def test_a_figure_that_no_run_can_have_names_the_line(world, tmp_path, key, value, message):
    _, runs = world
    store = Store(tmp_path / "results.jsonl", "tiny")
    store.add(line(runs[0]))
    store.path.write_text(json.dumps({**json.loads(store.path.read_text()), key: value}) + "\n")
    with pytest.raises(ValueError, match=rf"results\.jsonl:1: {message}; remove the line"):
        Store(store.path, "tiny")


def test_a_score_of_an_unknown_column_is_named(world, tmp_path):
    _, runs = world
    store = Store(tmp_path / "results.jsonl", "tiny")
    store.add(line(runs[0]))
    store.path.write_text(store.path.read_text().replace('"general":{', '"genera1":{'))
    with pytest.raises(ValueError, match="has a score of 'genera1', and its run has biomedicine, "):
        Store(store.path, "tiny").get(runs[0])


@pytest.mark.parametrize("value", ["high", float("nan"), 588.3, None])
def test_a_score_that_no_run_can_have_names_the_line(tmp_path, value):
    score = {"value": value, "low": 55.0, "high": 60.0, "questions": 9}
    line = {"hash": "a" * 64, "scale": "tiny", "rows": ["r"], "seed": 0, "scores": {"c": score}}
    line |= {key: {} for key in ("config", "seconds", "steps") if key not in line}
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"results.jsonl:1: c is .*no score; remove the line"):
        Store(tmp_path / "results.jsonl", "tiny")
