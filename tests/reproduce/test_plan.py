"""The plan of every table at the paper's scale, without data, GPU or network."""

import socket
from pathlib import Path

import pytest
import yaml

from llava_mole.reproduce.cost import PAPER_HOURS, PAPER_SAMPLES, Weights, gpu_hours
from llava_mole.reproduce.plan import plan, text
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.runs import resolve_runs, summary
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import select
from llava_mole.reproduce.store import Store
from tests.reproduce.tiny_scale import write_beyond, write_experiments

EXPERIMENTS = Path(__file__).parents[2] / "configs/experiments"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """All runs of the paper's tables and the controls by their first row's name."""
    rows, scale = read_rows(EXPERIMENTS), read_scale(EXPERIMENTS, "paper")
    selected = select(rows, tables=["2", "3", "4", "5", "controls"])
    runs = resolve_runs(scale, rows, selected, scale.seeds, tmp_path_factory.mktemp("out"))
    store = Store(tmp_path_factory.mktemp("out") / "results.jsonl", "paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _no_network)
        return scale, {one.run.rows[0]: one for one in plan(runs, scale, store)}


def _no_network(*_):
    raise AssertionError("a plan needs no network")


def test_samples_follow_lambda_and_epochs(planned):
    _, found = planned
    samples = {name: tuple(one.samples.values()) for name, one in found.items() if one.samples}
    assert samples["llava-1.5-1-0-0"] == (2_265_000, 0, 0)
    assert samples["llava-mix-1-2-1"] == (2_265_000, 2_200_000, 19_755)
    assert samples["llava-mix-x2-1-1-1"] == pytest.approx((4_530_000, 2_200_000, 39_510), rel=1e-4)
    assert found["llava-mole-1-1-1"].steps == 52_886
    assert found["llava-med-0-0-1"].steps == 308
    assert found["llava-1.5-official"].steps is None


def test_models_are_counted(planned):
    _, found = planned
    trained = {name: one.sizes.trained for name, one in found.items() if one.sizes}
    # Projector, LoRA, experts and routers, as the dry run has them.
    assert trained["llava-mole-1-1-1"] == 20_979_712 + 173_146_112
    routers = 3 * 4096 * 32
    assert trained["llava-mix-equal-1-1-1"] == trained["llava-mole-1-1-1"] - routers
    assert trained["llava-mix-equal-k16"] == trained["llava-mole-k16"] - 16 * 4096 * 32
    assert trained["llava-mix-1-0-r128"] == 20_979_712 + 4 * 79_953_920


def test_hours_are_the_papers_and_go_with_samples_and_operations(planned):
    _, found = planned
    hours = {name: one.hours["A100"] for name, one in found.items() if one.hours}
    assert hours["llava-mole-1-1-1"] == pytest.approx(1024, abs=0.5)
    assert hours["llava-mix-x2-1-1-1"] / hours["llava-mix-1-1-1"] == pytest.approx(2, rel=1e-3)
    assert hours["llava-mole-dense-k3"] > hours["llava-mole-1-1-1"]
    assert found["llava-mole-1-1-1"].hours["H200"] == pytest.approx(1024 * 312 / 989, abs=0.5)


def test_hours_of_the_papers_own_run():
    weights = Weights(6_738_939_904, 33_554_432 + 139_198_464 // 3 + 393_216)
    assert gpu_hours(PAPER_SAMPLES, weights)["A100"] == pytest.approx(PAPER_HOURS)


def test_the_text_says_what_is_an_estimate(planned):
    scale, found = planned
    shown = text(list(found.values()), scale, 1)
    assert shown.startswith(scale.label)
    assert "GPU-hours are an estimate" in shown
    assert "evaluated only" in shown
    for one in found.values():
        assert (one.run.name if one.run.config else one.run.rows[0]) in shown


def test_a_small_scale_says_what_was_not_measured(tmp_path):
    experiments = write_experiments(tmp_path)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    runs = resolve_runs(scale, rows, select(rows, names=["llava-mix-1-2-0"]), (0,))
    store = Store(tmp_path / "results.jsonl", "tiny")
    (one,) = plan(runs, scale, store)
    assert (one.steps, one.seconds) == (6, None)
    assert dict(one.samples) == {"general": 16, "document": 32, "biomedicine": 0}
    assert "16 + 32 + 0" in text([one], scale, 2)
    assert "time: not measured" in text([one], scale, 2)


@pytest.fixture
def world(tmp_path):
    """Experiments whose data is not here, their results, and a way to plan a row."""
    experiments = write_experiments(tmp_path)
    for file in (tmp_path / "data").rglob("*.json"):
        file.unlink()
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    store = Store(tmp_path / "results.jsonl", "tiny")

    def planned(name, seeds=(0,)):
        scale = read_scale(experiments, "tiny")
        runs = resolve_runs(scale, rows, select(rows, names=[name]), seeds)
        return runs, plan(runs, scale, store)

    return experiments, scale, store, planned


def finish(store, run, steps, seconds):
    score = {"value": 1.0, "low": 1.0, "high": 1.0, "questions": 1}
    store.add(
        {
            "hash": run.hash,
            "scale": "tiny",
            "rows": list(run.rows),
            "seed": run.seed,
            "config": summary(run),
            "scores": {"general": score},
            "seconds": {"attempts": 1, "train": seconds, "eval": 5.0},
            "steps": steps,
        }
    )


def test_without_data_and_published_sizes_the_steps_are_unknown(world):
    _, scale, store, planned = world
    _, (one,) = planned("llava-mix-1-2-0")
    assert (one.steps, one.samples) == (None, None)
    assert "?" in text([one], scale, 2)
    # Finished runs of the scale do not help then; the reason is said, and not another one.
    runs, _ = planned("llava-mix-1-1-1")
    finish(store, runs[0], 6, 60.0)
    _, (one,) = planned("llava-mix-1-2-0")
    said = text([one], scale, 2)
    assert "time of 1 runs: unknown, as their steps hang on data that is not here" in said
    assert "no run of this scale is finished" not in said


def test_another_seed_says_the_steps_and_finished_runs_the_pace(world):
    _, scale, store, planned = world
    (first, _), _ = planned("llava-mix-1-2-0", (0, 1))
    finish(store, first, 8, 80.0)
    _, (done, left) = planned("llava-mix-1-2-0", (0, 1))
    assert (done.done, left.done, left.steps) == (True, False, 8)
    assert left.seconds == pytest.approx(8 * 10 + 5)
    assert "left to do: 1.4 min of one process, 0.7 min on 2" in text([done, left], scale, 2)


def test_sets_that_are_resampled_need_not_be_here(world):
    experiments, _, _, planned = world
    file = experiments / "tiny/finetune.yaml"
    values = yaml.safe_load(file.read_text())
    for domain in values["data"]["domains"].values():
        domain["datasets"][0]["resample"] = 40
    file.write_text(yaml.safe_dump(values))
    _, (one,) = planned("llava-mix-1-2-0")
    assert dict(one.samples) == {"general": 40, "document": 80, "biomedicine": 0}
    assert one.steps == 120 // 8


def test_a_stage_1_that_is_made_on_the_way_is_said(tmp_path):
    experiments = write_beyond(tmp_path)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    chosen = select(rows, names=["llava-mix-stage1-5e-2"])
    runs = resolve_runs(scale, rows, chosen, (0, 1))
    planned = plan(runs, scale, Store(tmp_path / "results.jsonl", "tiny"))
    assert text(planned, scale, 2).count("stage 1 first, once, not counted: llava-mix-stage1") == 1
