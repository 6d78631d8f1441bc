"""Images that go bad while a run is under way."""

import json
import shutil

import pytest
import torch

from llava_mole.data.records import BadRecord, Problem
from llava_mole.train.bad_samples import BadSamples, add_to_report
from llava_mole.train.trainer import TrainingStopped
from tests.train.conftest import largest_difference, weights
from tests.train.ranks import launch, write_config


def values_with_damage(runs, name, damaged, stage="finetune", **train):
    """A run whose images ``damaged`` are there, as the audit sees it, but can't be read."""
    values = runs.values(name, stage, **{"max_steps": 7, **train})
    folder = runs.folder / f"{name}_data"
    if not folder.exists():
        shutil.copytree(runs.folder / f"{stage}_data", folder)
    for domain in values["data"]["domains"].values():
        (dataset,) = domain["datasets"]
        dataset["path"] = str(folder / f"{dataset['name']}.json")
    for image in damaged:
        (folder / "images" / image).write_bytes(b"was a png once")
    return values


def skipping(runs, name, **train):
    """One image of each data set; an epoch shows the second one twice."""
    damaged = ["squares-4.png", "mixed-7.png"]
    values = values_with_damage(runs, name, damaged, eval_steps=7, **train)
    held = {"name": "held", "path": values["data"]["domains"]["general"]["datasets"][0]["path"]}
    values["data"] |= {
        "on_bad_record": "skip",
        "max_bad_fraction": 0.1,
        # Of two samples the second of two ranks gets none.
        "eval": {"datasets": [held], "max_samples": 2},
    }
    return values


# Rounding that Adam makes larger where a gradient nearly vanishes; another sample in the place of
# a bad one changes weights by a hundred times as much.
CLOSE = 1e-5


def listed(run):
    return [json.loads(line) for line in (run / "bad_records.jsonl").open()]


def held_out_loss(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    (loss,) = [line["eval/held/loss"] for line in lines if "eval/held/loss" in line]
    return loss


@pytest.fixture(scope="module")
def skipped(runs):
    torch.set_num_threads(1)
    return runs.run(skipping(runs, "skipped_at_run_time", save_steps=4, save_total_limit=None))


def test_the_run_goes_on_and_lists_each_once(skipped):
    assert sorted(item["id"] for item in listed(skipped)) == ["mixed-7", "squares-4"]
    for item in listed(skipped):
        assert item["file"].endswith(f"{item['dataset']}.json")
        assert item["line"] >= 1
        assert f"{item['id']}.png" in item["reason"]
    # Counted as often as they were due; their places in the batches stay theirs.
    progress = json.loads((skipped / "checkpoint-7" / "progress.json").read_text())
    assert progress["unreadable"] == 3
    assert progress["samples_seen"] == {"squares": 24, "mixed": 32, "held": 0}
    assert all(tensor.isfinite().all() for tensor in weights(skipped).values())


def test_workers_change_nothing(runs, skipped):
    values = skipping(runs, "skipped_by_workers")
    values["data"]["num_workers"] = 2
    run = runs.run(values)
    first, second = weights(run), weights(skipped)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert listed_without_place(run) == listed_without_place(skipped)


def listed_without_place(run):
    return sorted((item["dataset"], item["line"], item["id"]) for item in listed(run))


def test_two_ranks_do_the_same(runs, skipped):
    values = skipping(runs, "skipped_on_two_ranks", per_device_train_batch_size=2)
    done = launch(write_config(runs.folder, values), 2)
    assert done.returncode == 0, done.stderr[-6000:]
    run = runs.folder / "skipped_on_two_ranks"
    assert held_out_loss(run) == pytest.approx(held_out_loss(skipped), abs=1e-4)
    assert largest_difference(weights(run), weights(skipped)) <= CLOSE
    assert listed_without_place(run) == listed_without_place(skipped)


def test_packed_they_weigh_nothing_either(runs, skipped):
    values = skipping(runs, "skipped_and_packed")
    values["data"] |= {"packing": True, "packing_length": 440}
    assert largest_difference(weights(runs.run(values)), weights(skipped)) <= CLOSE


def test_resumed_it_lists_nothing_twice_and_counts_on(runs, skipped):
    values = skipping(runs, "skipped_resumed", save_steps=4, save_total_limit=None)
    resumed = runs.folder / "skipped_resumed"
    resumed.mkdir()
    shutil.copytree(skipped / "checkpoint-4", resumed / "checkpoint-4")
    folder = str(runs.folder / "skipped_resumed_data")
    report = (skipped / "bad_records.jsonl").read_text()
    report = report.replace(str(runs.folder / "skipped_at_run_time_data"), folder)
    (resumed / "bad_records.jsonl").write_text(report)
    runs.run(values)
    first, second = weights(resumed), weights(skipped)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (resumed / "bad_records.jsonl").read_text() == report
    progress = json.loads((resumed / "checkpoint-7" / "progress.json").read_text())
    assert progress["unreadable"] == 3


def test_gone_before_resuming_the_order_stays_the_same(runs, skipped):
    """The audit finds the missing file now, and would permute what is left."""
    values = skipping(runs, "gone_later", save_steps=4, save_total_limit=None)
    resumed = runs.folder / "gone_later"
    resumed.mkdir()
    shutil.copytree(skipped / "checkpoint-4", resumed / "checkpoint-4")
    shutil.copy(skipped / "order.json", resumed)
    # Met before the checkpoint, in another epoch say: the audit knows nothing of it.
    met = Problem("mixed", "mixed.json", 1, "mixed-99", "gone")
    add_to_report(resumed / "bad_records.jsonl", [met])
    (runs.folder / "gone_later_data" / "images" / "squares-4.png").unlink()
    values["data"]["cache_dir"] = str(runs.folder / "gone_later_cache")
    runs.run(values)
    first, second = weights(resumed), weights(skipped)
    assert all(torch.equal(first[name], second[name]) for name in first)
    names = ["mixed-7", "mixed-99", "squares-4", "squares-4"]  # the last one is held out as well
    assert sorted(item["id"] for item in listed(resumed)) == names
    (resumed / "finished.json").unlink()
    shutil.rmtree(resumed / "checkpoint-7")
    path = runs.folder / "gone_later_data" / "mixed.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    with pytest.raises(ValueError, match="'mixed' has 15 records and had 16"):
        runs.run(values)


@pytest.mark.parametrize("workers", [0, 2])
def test_fail_stops_with_the_record(runs, workers):
    values = values_with_damage(runs, f"failed_{workers}", ["squares-4.png"])
    values["data"]["num_workers"] = workers
    with pytest.raises(BadRecord, match=r"squares.json:\d+: record 'squares-4': .*squares-4.png"):
        runs.run(values)


def test_a_run_that_failed_goes_on_under_skip(runs, skipped):
    values = skipping(runs, "failed_then_skipped", save_steps=1)
    values["data"]["on_bad_record"] = "fail"
    with pytest.raises(BadRecord):
        runs.run(values)
    values["data"]["on_bad_record"] = "skip"
    run = runs.run(values)
    first, second = weights(run), weights(skipped)
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
    assert steps[0] == 1
    assert len(steps) == len(set(steps)) + 2, "the held-out set and the summary are of step 7"


def test_fail_stops_all_ranks(runs):
    values = values_with_damage(
        runs, "failed_on_two", ["squares-4.png"], per_device_train_batch_size=2
    )
    done = launch(write_config(runs.folder, values), 2)
    assert done.returncode != 0
    assert "record 'squares-4'" in done.stderr
    assert [item["id"] for item in listed(runs.folder / "failed_on_two")] == ["squares-4"]


def test_too_many_stop_the_run_and_it_can_go_on_when_told(runs):
    damaged = [f"squares-{n}.png" for n in range(0, 24, 2)]
    values = values_with_damage(runs, "too_many_bad", damaged, save_steps=1)
    values["data"] |= {"on_bad_record": "skip", "max_bad_fraction": 0.008}
    with pytest.raises(ValueError, match=r"\d+ of the \d+ samples .* max_bad_fraction 0.8% bears"):
        runs.run(values)
    run = runs.folder / "too_many_bad"
    assert 9 <= len(listed(run)) < 12
    values["data"]["max_bad_fraction"] = 0.012
    runs.run(values)
    assert len(listed(run)) == 12


def test_a_global_batch_of_nothing_else_stops(runs):
    damaged = [f"{name}-{n}.png" for name in ("squares", "mixed") for n in range(24)]
    values = values_with_damage(runs, "all_bad", damaged, "pretrain")
    values["data"] |= {"on_bad_record": "skip", "max_bad_fraction": 1.0}
    with pytest.raises(TrainingStopped, match="none of the 8 samples"):
        runs.run(values)


@pytest.mark.parametrize("policy", ["skip", "fail"])
def test_held_out_images_go_bad_too(runs, policy):
    values = values_with_damage(runs, f"held_{policy}", [], eval_steps=1, max_steps=1)
    folder = runs.folder / f"held_{policy}_data"
    shutil.copytree(folder, folder / "held")
    (folder / "held" / "images" / "squares-1.png").write_bytes(b"not a png")
    held = {"name": "held", "path": str(folder / "held" / "squares.json")}
    values["data"]["eval"] = {"datasets": [held], "max_samples": 3}
    values["data"] |= {"on_bad_record": policy}
    if policy == "fail":
        with pytest.raises(BadRecord, match="squares-1"):
            runs.run(values)
        return
    run = runs.run(values)
    assert [(item["dataset"], item["id"]) for item in listed(run)] == [("held", "squares-1")]
    losses = [json.loads(line).get("eval/held/loss") for line in (run / "metrics.jsonl").open()]
    assert 4 < next(loss for loss in losses if loss is not None) < 8


def test_a_share_is_taken_of_a_thousand_at_least(tmp_path):
    problem = Problem("d", "f.json", 3, "r", "gone")
    bad = BadSamples(tmp_path / "bad.jsonl", "skip", 0.002)
    assert bad.meet([problem]) == bad.meet([problem]) == [problem]
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 1
    bad.count_among([problem] * 2, seen=8)
    with pytest.raises(ValueError, match=r"3 of the 1,000 samples .*: f.json:3: record 'r': gone"):
        bad.count_among([problem], seen=1000)
    bad.count_among([], seen=1500)
    none = BadSamples(tmp_path / "bad.jsonl", "skip", 0)
    with pytest.raises(ValueError, match="1 of the 8"):
        none.count_among([problem], seen=8)
