"""What is measured, and how tables and pictures show it, on gradients made up."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import set_seed

from llava_mole.analysis.conflicts.breakdown import conflicts
from llava_mole.analysis.conflicts.gradients import Grams
from llava_mole.analysis.conflicts.measure import Measurement, Settings, _measurable, _only
from llava_mole.analysis.conflicts.picture import draw_conflicts
from llava_mole.analysis.conflicts.pieces import Piece
from llava_mole.analysis.conflicts.table import (
    UNDECIDED,
    conflict_text,
    count_cells,
    lowest_pairs,
)
from llava_mole.analysis.conflicts.weights import autocast_of, model_at
from llava_mole.data.config import DataConfig, DatasetConfig, DomainConfig
from llava_mole.model.build import build_model
from llava_mole.train.adapter import attach
from tests.train.tiny_run import run_config

BATCHES = 6


def made_up(names: str, layers: int = 3, cell_sign=lambda layer, linear: 1) -> Measurement:
    """Domain d's mean turns by 40 degrees a domain, mirrored where ``cell_sign`` is -1; at 0 the
    last domain has no mean gradient at all."""
    rng = np.random.default_rng(0)
    pieces, values = [], []
    for layer in range(layers):
        for linear in ("q_proj", "up_proj"):
            sign = cell_sign(layer, linear)
            angles = np.radians(40) * np.arange(len(names))
            means = np.stack([np.cos(angles), np.sin(angles)], axis=1)
            means[-1] *= sign
            rows = np.repeat(means, BATCHES, axis=0)
            rows = np.concatenate([rows, np.zeros((len(rows), 30))], axis=1)
            rows += 0.03 * rng.standard_normal(rows.shape)
            pieces.append(Piece("lora", layer, linear, "B"))
            values.append(rows @ rows.T)
    shape = (len(names), BATCHES)
    grams = Grams(
        tuple(names),
        BATCHES,
        tuple(pieces),
        (),
        np.stack(values),
        np.full(len(pieces), 32),
        np.ones(shape),
        np.ones(shape, dtype=np.int64),
    )
    about = {
        "adapter": {"type": "lora", "r": 4},
        "weights": "at initialisation",
        "by": "dataset",
        "batches": BATCHES,
        "batch_size": 2,
        "seed": 0,
        "numbers": 64,
    }
    return Measurement(conflicts(grams), grams, about, ())


def test_cells_are_counted_by_their_intervals():
    signs = {(0, "q_proj"): -1, (1, "up_proj"): -1, (2, "q_proj"): 0}
    found = made_up("ab", cell_sign=lambda layer, linear: signs.get((layer, linear), 1))
    counts = {"conflict": 2, "agree": 3, "neither": 0, UNDECIDED: 1}
    assert count_cells(found.conflicts, 0, 1) == counts
    text = conflict_text(found)
    assert "a – b" in text
    assert "data set's own batches" in text
    assert np.isnan(found.conflicts.cells[2, "q_proj"].value[0, 1])


def test_an_interval_around_0_is_neither():
    def cell(value, low, high):
        return SimpleNamespace(**{k: {(0, 1): v} for k, v in locals().items()})

    cells = [cell(-0.2, -0.5, 0.1), cell(0.2, -0.1, 0.5), cell(-0.2, -0.3, -0.1)]
    counts = count_cells(SimpleNamespace(cells=dict(enumerate(cells))), 0, 1)
    assert counts == {"conflict": 1, "agree": 0, "neither": 2, UNDECIDED: 0}


def test_many_data_sets_show_the_lowest_pairs(tmp_path):
    found = made_up("abcdef")
    # 40 degrees between neighbours: b and f are 160 apart, a and f 200.
    lowest = lowest_pairs(found.conflicts.headline, 3)
    assert lowest == [(0, 4), (0, 5), (1, 5)]
    assert found.conflicts.headline.value[0, 5] == pytest.approx(np.cos(np.radians(200)), abs=0.05)
    text = conflict_text(found)
    assert "(the lowest 3 of 15 pairs)" in text
    draw_conflicts(found, tmp_path / "many.png")
    with Image.open(tmp_path / "many.png") as drawn:
        assert min(drawn.size) > 800


def test_two_domains_draw_and_other_suffixes_do_not(tmp_path):
    found = made_up("ab", layers=1)
    draw_conflicts(found, tmp_path / "made" / "two.svg")
    assert (tmp_path / "made" / "two.svg").read_text().startswith("<?xml")
    with pytest.raises(ValueError, match=r"name it .png, .svg or .pdf"):
        draw_conflicts(found, tmp_path / "two.gif")


def test_only_keeps_domains_or_data_sets():
    data = DataConfig(
        {
            "one": DomainConfig(1.0, [DatasetConfig("a", "a.json"), DatasetConfig("b", "b.json")]),
            "two": DomainConfig(1.0, [DatasetConfig("c", "c.json")]),
        }
    )

    def kept(**settings):
        domains = _only(data, Settings(**settings)).domains
        return {name: [d.name for d in domain.datasets] for name, domain in domains.items()}

    assert kept() == {"one": ["a", "b"], "two": ["c"]}
    assert kept(only=("two", "one")) == {"one": ["a", "b"], "two": ["c"]}
    assert kept(by="dataset", only=("b", "c")) == {"one": ["b"], "two": ["c"]}
    with pytest.raises(ValueError, match=r"--only one: data.domains has no dataset .* a, b, c"):
        kept(by="dataset", only=("b", "one"))
    with pytest.raises(ValueError, match=r"--only names one domain, 'one', and .* are one, two"):
        kept(only=("one", "one"))


def test_the_weights_at_initialisation_are_those_a_run_starts_with(tmp_path):
    config = run_config(tmp_path)
    set_seed(config.seed)
    expected = attach(build_model(config.model), config).state_dict()
    torch.manual_seed(3)
    model, where = model_at(config, "cpu", 0, None)
    assert where == "at initialisation"
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_mixed_precision_is_trainings(tmp_path):
    config = run_config(tmp_path)
    assert autocast_of(config) is None
    assert autocast_of(run_config(tmp_path, bf16=True)) == torch.bfloat16
    config.model.dtype = "float16"
    assert autocast_of(config) == torch.float16


def test_plain_lora_stands_for_a_mole_with_patterns_and_a_loss_of_its_routers(tmp_path):
    config = run_config(tmp_path, router_domain_coef=0.1)
    config.adapter.rank_pattern = {"layers.0.mlp": 2}
    config.adapter.route_by_image = True
    notes: list[str] = []
    found = _measurable(config, Settings(), notes)
    assert (found.adapter.type, found.adapter.r, found.adapter.rank_pattern) == ("lora", 4, {})
    assert "Plain LoRA of rank 4" in notes[0]
    assert "rank_pattern" in notes[1]
    assert _measurable(config, Settings(adapter="config"), []) is config
