"""A training that is paused between steps is the training that runs through."""

import threading

import pytest
import torch
from transformers import TrainerCallback

from llava_mole.bench.step import equal
from llava_mole.bench.step.arms import ours, peer
from llava_mole.bench.step.measure import _adapter
from llava_mole.bench.step.paused import PausedTraining
from llava_mole.bench.step.synthetic import small_job
from llava_mole.bench.step.ways import ALL_LEVERS, LLAVA


def training_threads():
    """Paused trainings' threads that are still there; a test runner may have threads of its own."""
    return [
        t for t in threading.enumerate() if "PausedTraining" in repr(getattr(t, "_target", None))
    ]


@pytest.fixture(scope="module")
def job():
    return small_job((64, 128, 1), 2, "cpu", rank=4, batch=4)


def trained(trainer):
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


class StopAfter(TrainerCallback):
    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.steps
        return control


@pytest.mark.parametrize("kind", ["mole", "lora", "peer"])
def test_steps_equal_those_of_one_run(job, tmp_path, kind):
    def make(name):
        if kind == "peer":
            return peer(job, ALL_LEVERS, tmp_path / name)
        return ours(job, _adapter(job, kind, 3), tmp_path / name)

    through = make("through")
    before = trained(through)
    through.add_callback(StopAfter(5))
    through.train()
    paused = make("paused")
    with PausedTraining(paused) as steps:
        for number in range(1, 6):
            steps.step()
            assert paused.state.global_step == number
    assert not training_threads()
    expected = trained(through)
    for name, weight in trained(paused).items():
        assert torch.equal(weight, expected[name]), name
    assert all(not torch.equal(expected[name], old) for name, old in before.items())


def test_an_error_in_a_step_comes_out_and_ends_it(job, tmp_path, monkeypatch):
    trainer = peer(job, LLAVA, tmp_path)
    with PausedTraining(trainer) as steps:
        steps.step()

        def broken(*args, **kwargs):
            raise RuntimeError("no more")

        monkeypatch.setattr(trainer, "compute_loss", broken)
        with pytest.raises(RuntimeError, match="no more"):
            steps.step()
        with pytest.raises(RuntimeError, match="ended"):
            steps.step()
    assert not training_threads()


def test_a_training_that_was_never_begun_can_be_closed(job, tmp_path):
    with PausedTraining(peer(job, LLAVA, tmp_path)):
        pass
    assert not training_threads()


def test_arms_share_the_base_and_nothing_that_trains(job, tmp_path):
    one, other = (peer(job, LLAVA, tmp_path / name) for name in "ab")
    pairs = zip(one.model.named_parameters(), other.model.named_parameters(), strict=True)
    for (name, mine), (_, theirs) in pairs:
        shared = mine.data_ptr() == theirs.data_ptr()
        assert shared != mine.requires_grad, name
        assert torch.equal(mine, theirs)
    assert not any(p.grad is not None for p in job.model.parameters())
    first = equal.outcome(one, gradient=True)
    with PausedTraining(one) as steps:
        steps.step()
    assert equal.outcome(one).loss != first.loss
    assert equal.outcome(other).loss == first.loss
