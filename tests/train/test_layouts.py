"""One global batch, cut in any way, gives one result."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llava_mole.config import from_dict
from llava_mole.data.mixture import Mixture, Part
from llava_mole.data.sampler import EpochSampler
from llava_mole.model.build import build_model
from llava_mole.train.adapter import attach
from llava_mole.train.batches import RankBatches
from llava_mole.train.config import RunConfig
from tests.train.conftest import largest_difference, weights


@pytest.mark.parametrize("size", [4, 1])
def test_accumulation_equals_one_large_batch(runs, one_process, size):
    values = runs.values(f"micro{size}", per_device_train_batch_size=size, max_steps=20)
    run = runs.run(values)
    assert largest_difference(weights(run), weights(one_process)) <= 1e-6
    texts = [(folder / "metrics.jsonl").read_text() for folder in (run, one_process)]
    for here, there in zip(*(map(json.loads, t.splitlines()) for t in texts), strict=True):
        for key in ("loss", "loss_lm", "loss_balance", "samples/squares", "routing/all/expert_0"):
            assert here.get(key) == pytest.approx(there.get(key), abs=1e-5)


def test_packed_equals_padded(runs, one_process):
    values = runs.values("packed", per_device_train_batch_size=4, max_steps=20)
    values["data"]["packing"] = True
    packed = runs.run(values)
    assert largest_difference(weights(packed), weights(one_process)) <= 1e-6


def test_packed_and_padded_choose_the_same_experts(runs, one_process, monkeypatch):
    """The precondition of the comparison above, on the trained weights."""
    from llava_mole.train.trainer import MoleTrainer

    chosen = {}
    add_routing = "llava_mole.train.meter.Meter.add_routing"
    for packing in (False, True):
        counts = []
        monkeypatch.setattr(add_routing, lambda self, c, ids, kept=counts: kept.append(c.clone()))
        monkeypatch.setattr(MoleTrainer, "_save_checkpoint", lambda *args: None)
        values = runs.values(f"choices{packing}", per_device_train_batch_size=8, max_steps=6)
        values["data"]["packing"] = packing
        runs.run(values)
        chosen[packing] = counts
    assert len(chosen[True]) == 6
    for padded, packed in zip(chosen[False], chosen[True], strict=True):
        assert torch.equal(padded, packed)


def test_workers_do_not_change_the_order(runs, one_process):
    values = runs.values("workers", per_device_train_batch_size=8, max_steps=9)
    here = runs.run(values)
    values = runs.values("workers2", per_device_train_batch_size=8, max_steps=9)
    values["data"]["num_workers"] = 2
    there = runs.run(values)
    assert all(torch.equal(a, b) for a, b in zip_named(weights(here), weights(there)))


def zip_named(one, other):
    assert one.keys() == other.keys()
    return [(one[name], other[name]) for name in one]


@pytest.mark.parametrize(("ranks", "size"), [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2), (8, 1)])
def test_a_global_batch_is_the_next_run_of_the_global_order(ranks, size):
    mixture = Mixture([Part("a", "x", 21), Part("b", "y", 9, 1.5)], seed=3)
    order = list(EpochSampler(mixture, 8))
    layouts = [list(RankBatches(EpochSampler(mixture, 8), size, r, ranks)) for r in range(ranks)]
    assert all(
        len(batches) == len(RankBatches(EpochSampler(mixture, 8), size, 0, ranks))
        for batches in layouts
    )
    steps = 8 // (ranks * size)
    for batch in range(len(order) // 8):
        taken = [
            index
            for step in range(batch * steps, (batch + 1) * steps)
            for rank in range(ranks)
            for index in layouts[rank][step]
        ]
        assert taken == order[8 * batch : 8 * batch + 8]


def test_epochs_differ_and_are_the_mixtures(runs):
    mixture = Mixture([Part("a", "x", 16)], seed=3)
    batches = RankBatches(EpochSampler(mixture, 8), 4, 0, 1)
    seen = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        seen.append([index for batch in batches for index in batch])
        assert seen[-1] == [tuple(pair) for pair in mixture.epoch(epoch).tolist()]
    assert seen[0] == seen[2] != seen[1]


def test_the_saved_adapter_is_what_was_trained(one_process):
    """`attach` on a fresh model plus the file gives the model that the run ended with."""
    from llava_mole.config import load
    from llava_mole.train.weights import load_trained

    config = load(RunConfig, one_process / "config.yaml")
    model = attach(build_model(config.model), config)
    load_trained(model, one_process)
    state = load_file(one_process / "adapter_model.safetensors")
    trained = {n.replace(".default", ""): p for n, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == len(state)
    for name, parameter in trained.items():
        assert torch.equal(parameter, state[name.replace("modules_to_save.", "")]), name


def test_unknown_values_are_errors():
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        from_dict(RunConfig, {"train": {"learning_rat": 1}}, "x")
