"""The step benchmark at a tiny size: it measures what it says, from made-up samples and a run."""

import json
import re

import pytest
import torch
import yaml

from llava_mole.bench.step import synthetic
from llava_mole.bench.step.measure import Settings, measure
from llava_mole.bench.step.samples import job_of
from llava_mole.cli.main import main
from llava_mole.config import load
from llava_mole.train.config import RunConfig
from tests.train.tiny_run import run_values

TINY = ["--rounds", "3", "--steps", "1", "--rank", "4", "--device", "cpu"]
SMALL = ["--synthetic", "--size", "64,128,1"]
ARMS = [
    "LLaVA's way",
    "LLaVA's way, in the mixture's order",
    "LLaVA's way, LoRA dropout 0",
    "LLaVA's way, supervised logits only",
    "LLaVA's way, packed",
    "LLaVA's way, no checkpointing",
    "LLaVA's way, all levers",
    "our plain LoRA",
    "MoLE K=2",
    "MoLE K=3",
]


def bench(*words) -> int:
    return main(["bench", "step", *map(str, words)])


@pytest.fixture
def config(tmp_path):
    """A tiny run that packs, as a file."""
    values = run_values(tmp_path)
    values["data"] |= {"packing": True, "packing_length": 256}
    values["data"]["feature_cache"] = str(tmp_path / "features.arrow")
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_made_up_samples(tmp_path, capsys):
    files = tmp_path / "out" / "step.json", tmp_path / "out" / "step.png"
    words = ("--experts", "2,3", "--json", files[0], "--plot", files[1])
    status = bench(*TINY, *SMALL, *words)
    values = json.loads(files[0].read_text())
    figures = {figure["name"]: figure for figure in values["figures"]}
    assert list(values["times"]) == list(values["speed"]) == list(values["differences"]) == ARMS
    assert all(len(rounds) == 3 for rounds in values["times"].values())
    assert max(values["differences"].values()) < 1e-4
    targets = {name: f["target"] for name, f in figures.items() if f["target"] is not None}
    assert targets == {
        "samples/s, MoLE K=3 / LLaVA's way": 2.0,
        "step, MoLE K=3 / our plain LoRA": 1.02,
    }
    assert not figures["samples/s, MoLE K=3 / LLaVA's way"]["most"]
    for name in ARMS:
        low, middle, high = figures[f"samples/s, {name} / LLaVA's way"]["quartiles"]
        assert low <= middle <= high
        assert 0.1 < middle < 20
    times = values["times"]
    ratios = sorted(
        llava[0] / mine[0]
        for llava, mine in zip(times["LLaVA's way"], times["MoLE K=3"], strict=True)
    )
    assert figures["samples/s, MoLE K=3 / LLaVA's way"]["value"] == pytest.approx(ratios[1])
    assert status == int(any(figure["met"] is False for figure in figures.values()))
    assert files[1].read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert re.search(r"MoLE K=3 / our plain LoRA.*<= 1.02 x", out)
    assert "8 samples, 8 a step" in out


def test_a_runs_samples_as_cached_features_or_pixels(config, tmp_path, capsys):
    assert bench(*TINY, "--config", config, "--experts", "2") in (0, 1)
    assert (tmp_path / "features.arrow").exists()
    assert "features of the vision tower; 8 samples" in capsys.readouterr().out
    assert {s["pixel_values"].ndim for s in samples_of(config) if "pixel_values" in s} == {3}
    assert {s["pixel_values"].ndim for s in samples_of(config, True) if "pixel_values" in s} == {4}


def samples_of(config, pixels=False):
    return job_of(str(config), 1, "cpu", pixels).samples


def test_seven_billion_at_a_small_size(config, capsys):
    run = load(RunConfig, config)
    job = synthetic.random_job(run, 1, "cpu", rank=2)
    assert job.lengths.max() <= run.model.model_max_length
    text = job.model.config.text_config
    assert text.hidden_size == run.model.language_config["hidden_size"]
    measured = measure(job, Settings(experts=(2,), rounds=3, peak=1e12))
    shares = [figure for figure in measured.figures if figure.name.startswith("MFU, ")]
    assert len(shares) == len(ARMS) - 1
    step = shares[0].value * 1e12 * sorted(own for own, _ in measured.times["LLaVA's way"])[1]
    assert f"{step / 1e12:.3g} TFLOP a step" in shares[0].note
    with torch.device("meta"):
        assert torch.empty(1).is_meta  # the device context of the model's making is over


def test_layouts_are_arithmetic_from_shapes(tmp_path, capsys):
    file = tmp_path / "layouts.json"
    assert bench("--layouts", "--json", file) == 0
    out = capsys.readouterr().out
    assert "ARITHMETIC, NOT A MEASUREMENT" in out
    values = json.loads(file.read_text())
    figures = {figure["name"]: figure["value"] for figure in values["figures"]}
    # 4 x 6.48e9 frozen weights of 32 layers x 1,121 tokens, and attention, adapter, images.
    assert 29 < figures["operations a sample"] < 34
    one = figures["64 ranks x 1 sample: slowest rank's tokens / mean"]
    packed = figures["8 ranks, packed: slowest rank's tokens / mean"]
    assert one > 3
    assert packed < 1.1
    hours = [
        figures[f"{name}: PROJECTED at an ASSUMED 45% MFU"]
        for name in ("64 ranks x 1 sample", "8 ranks, packed")
    ]
    assert hours[0] / hours[1] == pytest.approx(one / packed)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rounds", "1"], "--rounds 1"),
        (["--experts", "0"], "--experts"),
        (["--experts", "2,2"], "--experts"),
        (["--steps", "0"], "--steps"),
        (["--size", "64,128"], "WIDTH,FFN,LAYERS"),
        (["--size", "100,128,1"], "--size"),
        (["--device", "abacus"], "--device"),
        (["--plot", "step.txt"], "--plot step.txt"),
        (["--pixels"], "--pixels"),
        (["--config", "run.yaml"], "--synthetic"),
        (["--layouts", "--plot", "step.png"], "--layouts"),
    ],
)
def test_errors_name_what_is_wrong(words, expected, capsys):
    assert bench(*SMALL, *words) == 2
    assert expected in capsys.readouterr().err


def test_data_that_is_not_there_names_what_makes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values = run_values(tmp_path)
    values["data"]["domains"] = {
        "general": {"datasets": [{"name": "general", "path": "playground/general.jsonl"}]}
    }
    (tmp_path / "quickstart.yaml").write_text(yaml.safe_dump(values))
    assert bench("--config", "quickstart.yaml") == 2
    error = capsys.readouterr().err
    assert "data set 'general' is not at playground/general.jsonl" in error
    assert "bash scripts/quickstart.sh" in error
    assert "--synthetic" in error


def test_a_stage_without_an_adapter_has_no_step_to_compare(tmp_path, capsys):
    path = tmp_path / "pretrain.yaml"
    path.write_text(yaml.safe_dump(run_values(tmp_path, "pretrain")))
    assert bench("--config", path) == 2
    assert "stage pretrain" in capsys.readouterr().err


def test_more_steps_than_an_epoch_has(config, capsys):
    assert bench("--config", config, "--steps", "100", "--device", "cpu") == 2
    assert "--steps 100: an epoch" in capsys.readouterr().err
