"""What stops a run, and that it stops before the damage."""

import shutil

import pytest
import torch

from llava_mole.data.tokens.encode import IGNORE_INDEX
from llava_mole.train.batches import Step
from llava_mole.train.trainer import MoleTrainer, TrainingStopped
from llava_mole.train.zero_gradient import find_module
from tests.train.conftest import weights


def broken_at(step, damage):
    """`MoleTrainer.get_batch_samples` with ``damage`` done to the batches of ``step``."""
    original = MoleTrainer.get_batch_samples

    def get_batch_samples(self, iterator, num_batches, device):
        if self.state.global_step + 1 == step:
            iterator = iter([Step([damage(self, b) for b in next(iterator).micro_batches()])])
        return original(self, iterator, num_batches, device)

    return get_batch_samples


def test_a_nan_loss_stops_before_the_update(runs, monkeypatch):
    def damage(trainer, batch):
        head = find_module(trainer.model, "lm_head")
        head.weight.data[5] = float("nan")
        return batch

    monkeypatch.setattr(MoleTrainer, "get_batch_samples", broken_at(3, damage))
    steps = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a, **k: steps.append(1) or step(*a, **k))
    values = runs.values("nan", max_steps=5, save_steps=1)
    with pytest.raises(TrainingStopped, match=r"step 3: the loss is NaN or infinite on rank 0"):
        runs.run(values)
    assert len(steps) == 2
    last = runs.folder / "nan" / "checkpoint-2"
    assert all(tensor.isfinite().all() for tensor in weights(last).values())


def test_a_global_batch_without_targets_stops_with_the_reason(runs, monkeypatch):
    def damage(trainer, batch):
        return {**batch, "targets": torch.full_like(batch["targets"], IGNORE_INDEX)}

    monkeypatch.setattr(MoleTrainer, "get_batch_samples", broken_at(2, damage))
    with pytest.raises(TrainingStopped, match=r"step 2: none of the 8 samples .* supervised token"):
        runs.run(runs.values("untargeted", max_steps=5))


def test_a_micro_batch_without_targets_does_not(runs, monkeypatch):
    seen = []

    def damage(trainer, batch):
        seen.append(1)
        if len(seen) == 1:
            return {**batch, "targets": torch.full_like(batch["targets"], IGNORE_INDEX)}
        return batch

    monkeypatch.setattr(MoleTrainer, "get_batch_samples", broken_at(2, damage))
    run = runs.run(runs.values("half_targeted", max_steps=3))
    assert all(tensor.isfinite().all() for tensor in weights(run).values())


def test_a_full_disk_leaves_the_last_checkpoint_and_names_path_and_bytes(runs, monkeypatch):
    usage = shutil.disk_usage
    room = iter([10**12, 1000])

    def nearly_full(path):
        return usage(path)._replace(free=next(room))

    monkeypatch.setattr("llava_mole.train.checkpoints.shutil.disk_usage", nearly_full)
    values = runs.values("full", max_steps=4, save_steps=2)
    with pytest.raises(OSError, match=r"needs about [\d,]+ bytes and 1,000 are free"):
        runs.run(values)
    run = runs.folder / "full"
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-2"]
    monkeypatch.undo()
    runs.run(values)
    assert (run / "checkpoint-4").exists()


def test_a_missing_image_is_an_error_before_training(runs):
    values = runs.values("missing", max_steps=2)
    folder = runs.folder / "missing_data"
    shutil.copytree(runs.folder / "finetune_data", folder)
    next((folder / "images").glob("squares-*.png")).unlink()
    domain = values["data"]["domains"]["general"]
    domain["datasets"][0]["path"] = str(folder / "squares.json")
    with pytest.raises(ValueError, match=r"1 bad record\(s\) of 40"):
        runs.run(values)
    values["data"] |= {"on_bad_record": "skip", "max_bad_fraction": 0.1}
    values["output_dir"] = str(runs.folder / "skipped")
    run = runs.run(values)
    assert "squares-" in (run / "bad_records.jsonl").read_text()
