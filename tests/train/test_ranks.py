"""Two ranks on the CPU (gloo), started by torchrun: the same result as one process.

The first launch builds DeepSpeed's shared-memory op, which takes about a minute on a quiet machine
and is kept for the next ones.
"""

import json
import shutil

import pytest
import torch

from llava_mole.train import checkpoints
from tests.train.conftest import largest_difference, weights
from tests.train.ranks import launch, write_config
from tests.train.tiny_run import write_dataset

ZERO2, ZERO3 = (f"configs/deepspeed/zero{stage}.json" for stage in (2, 3))


def run_on_two_ranks(runs, values, *arguments):
    done = launch(write_config(runs.folder, values), 2, *arguments)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return runs.folder / values["output_dir"].split("/")[-1]


@pytest.fixture(scope="module")
def zero2(runs):
    values = runs.values(
        "zero2", per_device_train_batch_size=2, max_steps=20, save_steps=10, deepspeed=ZERO2
    )
    values["train"]["save_total_limit"] = None
    return values, run_on_two_ranks(runs, values)


def test_ddp_equals_one_process(runs, one_process):
    values = runs.values("ddp", per_device_train_batch_size=2, max_steps=20)
    run = run_on_two_ranks(runs, values)
    assert largest_difference(weights(run), weights(one_process)) <= 1e-6
    logs = [(r / "metrics.jsonl").read_text().splitlines() for r in (run, one_process)]
    for here, there in zip(*(map(json.loads, lines) for lines in logs), strict=True):
        for key in ("loss_lm", "loss_balance", "samples/mixed", "routing/mixed/expert_1"):
            assert here.get(key) == pytest.approx(there.get(key), abs=1e-5)


def test_zero2_equals_one_process(zero2, one_process):
    _, run = zero2
    assert largest_difference(weights(run), weights(one_process)) <= 1e-6
    manifest = checkpoints.verify(run / "checkpoint-20")
    assert (manifest["world_size"], manifest["zero_stage"]) == (2, 2)


def test_zero2_resumes_bit_for_bit(runs, zero2):
    values, whole = zero2
    values = {**values, "output_dir": str(runs.folder / "zero2_resumed")}
    resumed = runs.folder / "zero2_resumed"
    resumed.mkdir()
    shutil.copytree(whole / "checkpoint-10", resumed / "checkpoint-10")
    run_on_two_ranks(runs, values)
    first, second = weights(whole), weights(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads((resumed / "metrics.jsonl").open().readline())["step"] == 11
    # On another number of ranks DeepSpeed's shards don't fit: refused, naming both.
    shutil.rmtree(resumed / "checkpoint-20")
    (resumed / "finished.json").unlink()
    done = launch(write_config(runs.folder, values), 1)
    assert done.returncode != 0
    assert "sharded for world_size 2, this run has world_size 1" in done.stderr


def test_zero3_equals_one_process(runs, one_process):
    values = runs.values(
        "zero3", per_device_train_batch_size=2, max_steps=20, eval_steps=20, deepspeed=ZERO3
    )
    # One rank's held-out samples have images, the other's none: both gather the same weights.
    held = write_dataset(runs.folder / "held", "alternating", 8, 5, text_only_every=2)
    values["data"]["eval"] = {"datasets": [{"name": "alternating", "path": str(held)}]}
    run = run_on_two_ranks(runs, values)
    assert largest_difference(weights(run), weights(one_process)) <= 1e-6
    assert '"eval/alternating/loss"' in (run / "metrics.jsonl").read_text()


@pytest.mark.parametrize("deepspeed", [None, ZERO2, ZERO3])
def test_packed_rows_on_two_ranks_equal_one_process(runs, one_process, deepspeed):
    """Steps of two to four micro-batches, so that accumulation changes from step to step."""
    name = f"packed_{deepspeed and deepspeed[-10:-5]}"
    values = runs.values(name, max_steps=20, deepspeed=deepspeed)
    values["data"] |= {"packing": True, "packing_length": 440}
    run = run_on_two_ranks(runs, values)
    assert largest_difference(weights(run), weights(one_process)) <= 1e-6
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()][:-1]
    assert len({line["data/micro_steps"] for line in lines}) > 1
    reference = [json.loads(line) for line in (one_process / "metrics.jsonl").open()][:-1]
    for here, there in zip(lines, reference, strict=True):
        for key in ("loss", "loss_lm", "loss_balance", "samples/mixed", "grad_norm"):
            assert here[key] == pytest.approx(there[key], abs=1e-5), key
        assert 1 <= here["data/rank_imbalance"] < 1.5


def test_zero2_pretrains_the_projector_and_saves_nothing_else(runs, one_process_pretrain):
    values = runs.values(
        "zero2_pretrain",
        "pretrain",
        per_device_train_batch_size=2,
        max_steps=20,
        save_steps=10,
        save_total_limit=None,
        deepspeed=ZERO2,
    )
    run = run_on_two_ranks(runs, values)
    assert largest_difference(weights(run), weights(one_process_pretrain)) <= 1e-6
    sizes = {path: path.stat().st_size for path in (run / "checkpoint-20").rglob("*.pt")}
    assert sum(sizes.values()) < 200_000, "the frozen base travels along"
    resumed = runs.folder / "zero2_pretrain_resumed"
    resumed.mkdir()
    shutil.copytree(run / "checkpoint-10", resumed / "checkpoint-10")
    run_on_two_ranks(runs, {**values, "output_dir": str(resumed)})
    first, second = weights(run), weights(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)
