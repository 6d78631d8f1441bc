"""The base model that results rest on: told by its weights, never mixed, copied into place."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llava_mole.reproduce.base import base_of
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.runs import resolve_runs
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import select
from llava_mole.reproduce.store import Store
from llava_mole.reproduce.tiny import prepare as prepared
from tests.reproduce.test_store import line
from tests.reproduce.tiny_scale import write_beyond

OWN = "llava-mole-stage1-mole"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A plain row's and one's that brings its own stage 1, with a base model's files."""
    monkeypatch.chdir(tmp_path)
    experiments = write_beyond(tmp_path)
    file = experiments / "tiny/finetune.yaml"
    file.write_text(
        file.read_text().replace("model:\n", "model:\n  projector: stage1\n", 1), encoding="utf-8"
    )
    write("stage1", b"projector")
    scale, rows = read_scale(experiments, "tiny"), read_rows(experiments)
    found = resolve_runs(scale, rows, select(rows, names=["llava-mix-1-1-0", OWN]), (0, 1))
    assert [run.stage_1 is None for run in found] == [True, True, False, False]
    return found


def write(folder, weights):
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / "model.safetensors").write_bytes(weights)


def test_the_base_is_its_weights_and_not_its_place(runs):
    plain, _, own, _ = runs
    before = base_of(plain), base_of(own)
    write("stage1", b"another")
    assert base_of(plain) != before[0]
    # Its own projector is trained on the way: the language model is all that it starts from.
    assert base_of(own) == before[1]
    write("stage1", b"projector")
    assert (base_of(plain), base_of(own)) == before
    assert before[0] != before[1]


def test_a_line_of_another_base_is_refused_and_the_file_stays(runs):
    plain, later, own, _ = runs
    store = Store(Path("results.jsonl"), "tiny")
    store.add(line(plain, base="aaaa"))
    store.add(line(own, base="cccc"))
    text = store.path.read_text()
    with pytest.raises(
        ValueError, match=r"seed 1, starts .* bbbb, .*seed 0, from aaaa: .*--output"
    ):
        store.add(line(later, base="bbbb"))
    assert store.path.read_text() == text
    # As a line by hand: the place is named.
    store.path.write_text(text + json.dumps(line(later, base="bbbb")) + "\n")
    with pytest.raises(ValueError, match=r"results\.jsonl:3: .*never mixed"):
        Store(store.path, "tiny")


def test_another_base_is_refused_before_anything_is_trained(runs):
    plain, later, own, _ = runs
    store = Store(Path("results.jsonl"), "tiny")
    store.add(line(plain, base=base_of(plain)))
    store.refuse_another_base([later, own])
    write("stage1", b"another")
    with pytest.raises(ValueError, match=r"results\.jsonl: .*never mixed"):
        store.refuse_another_base([own, later])
    store.refuse_another_base([own])


def test_a_line_that_does_not_say_its_base_is_of_another(runs):
    plain, later, own, _ = runs
    store = Store(Path("results.jsonl"), "tiny")
    store.add(line(plain))
    with pytest.raises(ValueError, match="from some that it does not say"):
        store.add(line(later, base="bbbb"))
    store.add(line(later))
    checkpoint = line(own, base=None) | {"config": {"checkpoint": "llava-hf/llava-1.5-7b-hf"}}
    store.add(checkpoint)


def test_the_base_is_copied_in_one_step_and_what_is_there_stays(tmp_path, capsys):
    write(tmp_path / "kept", b"kept")
    place = tmp_path / "models/decoder"
    place.parent.mkdir()
    (tmp_path / "models/decoder.partial").mkdir()
    (tmp_path / "models/decoder.partial/torn").write_bytes(b"")
    prepared._copy(tmp_path / "kept", place)
    assert [file.name for file in place.iterdir()] == ["model.safetensors"]
    write(place, b"own")
    assert capsys.readouterr().err == ""
    prepared._copy(tmp_path / "kept", place)
    assert (place / "model.safetensors").read_bytes() == b"own"
    assert "models/decoder holds other weights than " in capsys.readouterr().err


def test_features_are_made_on_one_thread_whatever_the_machine_has(monkeypatch):
    threads = []
    for name in (
        "build_data",
        "build_short",
        "prepare_efficientnet",
        "_copy",
        "build_base",
        "train",
    ):
        monkeypatch.setattr(prepared, name, lambda *_: None)
    monkeypatch.setattr(
        prepared, "cache_features", lambda _: threads.append(torch.get_num_threads())
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        experiments = Path(__file__).parents[2] / "configs/experiments"
        prepared.prepare(experiments, read_scale(experiments, "tiny"))
        assert (threads, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_the_shipped_results_rest_on_the_shipped_base(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    experiments = Path("configs/experiments")
    scale, rows = read_scale(experiments, "tiny"), read_rows(experiments)
    lines = Store(Path(scale.results), "tiny").lines.values()
    assert lines
    for name in ("llava-mix-1-1-1", OWN):
        selected = select(rows, names=[name])
        run = next(one for one in resolve_runs(scale, rows, selected, (10,)) if name in one.rows)
        base = Path(scale.base_model)
        model = replace(
            run.config.model,
            language_model=str(base / "decoder"),
            projector=str(base / "pretrain"),
        )
        shipped = base_of(replace(run, config=replace(run.config, model=model)))
        found = {one["base"] for one in lines if ("stage_1" in one["config"]) == (name == OWN)}
        assert found <= {shipped}
        # Only the rows that bring their own stage 1 may not have run yet.
        assert found or name == OWN
