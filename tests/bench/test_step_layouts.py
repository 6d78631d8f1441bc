"""Balance of ranks by a slow count, and hours worked out by hand."""

import numpy as np
import pytest

from llava_mole.bench import layouts
from llava_mole.bench.step.operations import Operations
from llava_mole.config import from_dict
from llava_mole.train.config import RunConfig
from tests.train.tiny_run import run_values


def test_the_made_up_mixture_is_like_the_papers():
    lengths, images = layouts.made_up_mixture(64_000)
    assert lengths.mean() == pytest.approx(1119, rel=0.01)
    assert lengths.max() == 4096
    assert (lengths >= np.minimum(576 * images, 4096)).all()
    again, _ = layouts.made_up_mixture(64_000)
    assert np.array_equal(lengths, again)


def test_figures_by_hand():
    # Two global batches: one sample of 1,000 tokens among 63 of 100, then all of 200.
    tokens = np.concatenate([[1000], np.full(63, 100), np.full(64, 200)])
    images = np.zeros(128, dtype=int)
    lengths = layouts.Lengths(tokens, images, "by hand")
    operations = Operations(token=10, pair=0, target=0, tower=0, projector=0)
    found = {
        figure.name: figure
        for figure in layouts.figures(
            lengths, operations, samples=3600, paper_hours=10, peak=100, mfu=(0.5,)
        )
    }
    computed = 1000 + 63 * 100 + 64 * 200
    paper = found["64 ranks x 1 sample: slowest rank's tokens / mean"]
    assert paper.value == pytest.approx(64 * (1000 + 200) / computed)
    assert "1.00 micro-steps" in paper.note
    # Each rank of 8 takes 8 samples in one row; the one with the long sample only that one.
    eight = found["8 ranks, packed: slowest rank's tokens / mean"]
    assert eight.value == pytest.approx(8 * (1000 + 8 * 200) / computed)
    hours = 3600 * (10 * tokens.mean()) / 100 / 3600
    projected = found["64 ranks x 1 sample: PROJECTED at an ASSUMED 50% MFU"]
    assert projected.value == pytest.approx(hours / 0.5 * paper.value)
    assert projected.unit == "A100-h"
    assert f"{hours / 10:.1%} of its peak" in found["the paper's GPU-hours"].note
    assert "decoder 100.0%" in found["operations a sample"].note


def test_a_runs_own_lengths(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "GLOBAL_BATCH", 8)
    config = from_dict(RunConfig, run_values(tmp_path), "test")
    lengths = layouts.lengths_of(config, batches=2)
    assert len(lengths.tokens) == len(lengths.num_images) == 16
    assert set(lengths.num_images) == {0, 1}
    assert lengths.tokens.min() > 20
    assert "16 samples of the run's mixture" in lengths.source
