"""Gradient cosines measured from a row, written down, and read back."""

import json

import pytest

from llava_mole.config import ConfigError
from llava_mole.reproduce.cosines import measure_cosines, read_cosines
from llava_mole.reproduce.rows import find, read_rows
from llava_mole.reproduce.scales import read_scale
from tests.reproduce.tiny_scale import DOMAINS, write_experiments


def test_cosines_are_measured_at_each_place_and_read_in_either_order(tmp_path):
    experiments = write_experiments(tmp_path)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    file = tmp_path / "cosines.json"
    row = find(rows, "llava-mix-1-1-1")
    measure_cosines(scale, row, file, steps=(0, 3), batches=4, batch_size=2)
    start, later = read_cosines(file, "tiny")
    assert (start.weights, later.weights) == ("at initialisation", "after 3 steps on the mixture")
    assert len(start.between) == len(DOMAINS) * (len(DOMAINS) - 1)
    for (one, other), value in start.between.items():
        assert start.between[other, one] == value
        assert value is None or -1 <= value <= 1
    written = json.loads(file.read_text())
    first, second = written["measurements"]
    assert first["adapter"] == second["adapter"] == {"type": "lora", "r": 4}
    assert first["domains"] != second["domains"]
    assert str(tmp_path) not in file.read_text()
    # The same again.
    before = file.read_bytes()
    measure_cosines(scale, row, file, steps=(0, 3), batches=4, batch_size=2)
    assert file.read_bytes() == before
    with pytest.raises(ConfigError, match=r"cosines of scale 'tiny', not of 'paper'; measure"):
        read_cosines(file, "paper")


@pytest.mark.parametrize("text", ["{", "[]", '{"scale": "tiny"}'])
def test_another_file_is_named(tmp_path, text):
    file = tmp_path / "cosines.json"
    assert read_cosines(file, "tiny") == []
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"cosines\.json: no file of gradient cosines"):
        read_cosines(file, "tiny")
