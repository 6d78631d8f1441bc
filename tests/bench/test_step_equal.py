"""Arms that compute something else are not timed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llava_mole.bench.step import equal, measure
from llava_mole.bench.step.arms import ours, peer
from llava_mole.bench.step.measure import Settings, _adapter
from llava_mole.bench.step.peer import PeerTrainer
from llava_mole.bench.step.synthetic import small_job
from llava_mole.bench.step.ways import ALL_LEVERS, LLAVA
from llava_mole.data.collate import PackedCollator
from llava_mole.mole import LoraExperts
from llava_mole.train import trainer as training


@pytest.fixture(scope="module")
def job():
    return small_job((64, 128, 1), 2, "cpu", rank=4, batch=4)


def loss_by_hand(job, model):
    """Sample by sample, in float64, over all targets."""
    model = model.double().eval()
    total = count = 0
    for sample in job.samples:
        ids, labels = sample["encoded"].input_ids[None], sample["encoded"].labels
        pixels = {k: v.double() for k, v in sample.items() if k == "pixel_values"}
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False, **pixels).logits[0]
        total += F.cross_entropy(logits[:-1], labels[1:], reduction="sum").item()
        count += (labels[1:] != -100).sum().item()
    return total / count


@pytest.mark.parametrize("way", [LLAVA, ALL_LEVERS])
def test_an_arms_loss_is_that_of_its_samples_one_by_one(job, tmp_path, way):
    import copy

    trainer = peer(job, way, tmp_path)
    # Not the arm's own model, whose base all arms share.
    expected = loss_by_hand(job, copy.deepcopy(trainer.model))
    assert equal.outcome(trainer).loss == pytest.approx(expected, rel=1e-6)
    arm = ours(job, _adapter(job, "lora"), tmp_path)
    assert equal.outcome(arm).loss == pytest.approx(expected, rel=1e-6)


def test_packed_samples_that_see_each_other_are_not_timed(job, monkeypatch):
    right = PackedCollator.__call__

    def wrong(self, samples):
        batch = right(self, samples)
        length = batch["input_ids"].shape[1]
        return {**batch, "position_ids": torch.arange(length)[None]}

    monkeypatch.setattr(PackedCollator, "__call__", wrong)
    with pytest.raises(RuntimeError, match=r"packed: .* differs .* not timed"):
        measure.measure(job, Settings((2,), 3))


def test_a_wrong_loss_of_ours_is_not_timed(job, monkeypatch):
    right = training.summed_cross_entropy
    monkeypatch.setattr(training, "summed_cross_entropy", lambda *a: 1.001 * right(*a))
    with pytest.raises(RuntimeError, match=r"our plain LoRA: loss .* not timed"):
        measure.measure(job, Settings((2,), 3))


def test_a_wrong_gradient_is_not_timed(job, monkeypatch):
    right = PeerTrainer.compute_loss

    def wrong(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = right(self, model, inputs, return_outputs, num_items_in_batch)
        scale = 1.0 if "labels" in inputs else 1.1
        return loss.detach() + scale * (loss - loss.detach())

    monkeypatch.setattr(PeerTrainer, "compute_loss", wrong)
    with pytest.raises(RuntimeError, match=r"supervised logits only: the gradient of .* not timed"):
        measure.measure(job, Settings((2,), 3))


def test_wrong_experts_are_not_timed(job, monkeypatch):
    reset = LoraExperts.reset_parameters
    seen = []

    def other_each_time(self, *args, **kwargs):
        torch.manual_seed(len(seen))
        seen.append(0)
        return reset(self, *args, **kwargs)

    monkeypatch.setattr(LoraExperts, "reset_parameters", other_each_time)
    with pytest.raises(RuntimeError, match=r"MoLE K=2: .* its loop on padded rows.* not timed"):
        measure.measure(job, Settings((2,), 3))


def test_nan_is_not_equal():
    with pytest.raises(RuntimeError, match="not timed"):
        equal._same(
            "arm",
            equal.Outcome(np.nan, {}),
            "other",
            equal.Outcome(1.0, {}),
            equal.Tolerance(1e-5, 1e-3),
        )


def test_dropout_comes_back_after_the_check(job, tmp_path):
    trainer = peer(job, LLAVA, tmp_path)
    rates = {m.p for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout)}
    equal.outcome(trainer, gradient=True)
    assert rates == {m.p for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout)}
    assert 0.05 in rates
    assert all(p.grad is None for p in trainer.model.parameters())
