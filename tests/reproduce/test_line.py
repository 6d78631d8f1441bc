"""From a run directory to a line: only from the row's own run, and only when it is whole."""

import dataclasses
import json

import pytest

from llava_mole.config import dump
from llava_mole.model.identity import weights_of
from llava_mole.reproduce.line import NotReady, line_of
from llava_mole.reproduce.rows import find, read_rows
from llava_mole.reproduce.runs import resolve_runs
from llava_mole.reproduce.scales import read_scale
from llava_mole.train.weights import ADAPTER_FILE
from tests.reproduce.tiny_scale import write_experiments


@pytest.fixture
def world(tmp_path):
    """The scale, and a run whose folder holds what looks finished."""
    experiments = write_experiments(tmp_path)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    (run,) = resolve_runs(scale, rows, [find(rows, "llava-mix-1-1-0")], [0], tmp_path / "out")
    run.folder.mkdir(parents=True)
    (run.folder / ADAPTER_FILE).write_bytes(b"x")
    finished = {"steps": 4, "files": {ADAPTER_FILE: 1}}
    (run.folder / "finished.json").write_text(json.dumps(finished), encoding="utf-8")
    dump(run.config, run.folder / "config.yaml")
    return run, scale


@pytest.mark.parametrize("change", [{"seed": 1}, {"r": 64}])
def test_a_run_of_another_config_is_not_the_rows(world, change):
    run, scale = world
    config = run.config
    if "r" in change:
        config = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, r=64))
    else:
        config = dataclasses.replace(config, seed=1)
    dump(config, run.folder / "config.yaml")
    with pytest.raises(NotReady, match="not the row's run, but one with"):
        line_of(run, scale)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_broken_results_are_no_results(world, text):
    run, scale = world
    (run.folder / "eval").mkdir()
    (run.folder / "eval/results.json").write_text(text, encoding="utf-8")
    with pytest.raises(NotReady, match=r"results\.json"):
        line_of(run, scale)


@pytest.mark.parametrize(
    ("asked", "settings", "message"),
    [
        ({}, {"suffix": "In a word."}, r"general\.first4 was asked with suffix 'In a word\.'"),
        ({"suffix": "In a word."}, {}, r"was asked with suffix '', and the scale asks with 'In a"),
        ({"max_new_tokens": 3}, {}, r"was asked with max_new_tokens 8, and the scale asks with 3"),
    ],
)
def test_answers_to_another_prompt_are_not_the_scales(world, asked, settings, message):
    run, scale = world
    general = dataclasses.replace(run.asked[0], **asked)
    run = dataclasses.replace(run, asked=(general, *run.asked[1:]))
    usual = {"prefix": "", "suffix": "", "max_new_tokens": 8, "repetition_penalty": 1.0}
    entry = {"settings": {**usual, **settings}, "lines": []}
    values = {
        "model": {"weights": weights_of(run.folder)},
        "benchmarks": {one.label: entry for one in run.asked},
    }
    (run.folder / "eval").mkdir()
    (run.folder / "eval/results.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(NotReady, match=message):
        line_of(run, scale)
