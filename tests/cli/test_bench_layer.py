"""The layer benchmark at a tiny size: every arm, part, picture and error."""

import json
import os
import subprocess
import sys

import pytest

from llava_mole.bench.layer import others
from llava_mole.cli.bench.layer import MALLOC
from llava_mole.cli.main import main

TINY = [
    *("--shapes", "32x48", "--tokens", "16", "--experts", "2,3", "--rank", "4", "--rounds", "3"),
    *("--saved-shape", "32x64", "--saved-tokens", "8", "--device", "cpu"),
]
ARMS = [
    *("frozen", "PEFT", "PEFT default", "MoLE K=1"),
    *(
        f"{kind} K={k}"
        for kind in ("MoLE", "mask loop", "MixLoRA-style", "dense", "dense as rank")
        for k in (2, 3)
    ),
]


def bench(*words) -> int:
    return main(["bench", "layer", *TINY, *map(str, words)])


def test_the_command_measures_and_writes_every_arm(tmp_path, capsys):
    file, picture = tmp_path / "out" / "layer.json", tmp_path / "layer.png"
    assert bench("--json", file, "--plot", picture) == 0  # no target outside the protocol
    values = json.loads(file.read_text())
    figures = {figure["name"]: figure for figure in values["figures"]}
    timed = [name for name in figures if name.startswith("32x48, T=16, ")]
    assert timed == [f"32x48, T=16, {arm} / PEFT" for arm in ARMS] + [
        f"32x48, T=16, MoLE K={k} / {kind} K={k}"
        for k in (2, 3)
        for kind in ("mask loop", "MixLoRA-style", "dense")
    ]
    decoded = [name for name in figures if name.startswith("32x48, decode, ")]
    arms = ["frozen", "PEFT", "MoLE K=2", "MoLE K=3"]
    assert decoded == [f"32x48, decode, {arm} / PEFT" for arm in arms]
    for name in (*timed, *decoded):
        low, middle, high = figures[name]["quartiles"]
        assert low <= middle == figures[name]["value"] <= high
        assert 0.02 < middle < 50
        assert figures[name]["target"] is None
    assert figures["32x64, saved, frozen"]["value"] == 3 * 64 * 2 / 1024
    assert figures["32x64, saved, MoLE K=16 / MoLE K=2"]["value"] > 0
    assert values["settings"]["rounds"] == 3
    assert values["threads"] == 1
    assert set(values["versions"]) == {"python", "torch", "transformers", "peft"}
    assert set(values["malloc"]) == set(MALLOC)
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr()
    assert "32x48, T=16, mask loop K=3 / PEFT" in said.out
    assert "starting again" not in said.err  # nobody who calls main() is replaced


def test_one_part_alone(capsys):
    assert bench("--only", "saved") == 0
    out = capsys.readouterr().out
    assert "32x64, saved, PEFT" in out
    assert "32x48, " not in out  # what is timed


def test_targets_are_judged_at_the_papers_widths(monkeypatch, capsys):
    from llava_mole.bench.layer import settings

    monkeypatch.setattr(settings, "LARGE", (32, 64))
    monkeypatch.setattr(settings, "_RANK", 4)
    monkeypatch.setattr(settings, "_SAVED_BARS", {"PEFT": {2: 0.0, 3: 100.0}})
    assert bench("--only", "saved") == 1
    lines = capsys.readouterr().out.splitlines()
    assert any("MoLE K=2 / PEFT" in line and "<= 0 x" in line and "NO" in line for line in lines)
    assert any("MoLE K=3 / PEFT" in line and "<= 100 x" in line and "yes" in line for line in lines)


def test_what_is_wrong_is_not_timed(monkeypatch):
    right = others.MixLora.lora
    monkeypatch.setattr(others.MixLora, "lora", lambda *given: 1.001 * right(*given))
    with pytest.raises(RuntimeError, match=r"MixLoRA-style K=.*: output differs .* not timed"):
        bench("--only", "time")


def test_the_command_starts_again_once_with_steady_memory(tmp_path):
    file = tmp_path / "layer.json"
    environment = {name: value for name, value in os.environ.items() if name not in MALLOC}
    command = [sys.executable, "-m", "llava_mole.cli.main", "bench", "layer", *TINY]
    done = subprocess.run(
        [*command, "--only", "decode", "--json", str(file)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("starting again with MALLOC_MMAP_MAX_=0 MALLOC_TRIM") == 1
    assert json.loads(file.read_text())["malloc"] == MALLOC


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only", "speed"], "--only speed: choose from saved, time, decode"),
        (["--only", ""], "--only"),
        (["--rounds", "2"], "--rounds 2"),
        (["--experts", "0"], "--experts"),
        (["--tokens", "0"], "--tokens"),
        (["--rank", "0"], "--rank"),
        (["--shapes", "64"], "--shapes 64: write it as WIDTHxFFN"),
        (["--shapes", "64xwide"], "--shapes 64xwide"),
        (["--saved-shape", "0x4"], "--saved-shape"),
        (["--saved-tokens", "0"], "--saved-tokens"),
        (["--device", "abacus"], "--device"),
        (["--plot", "layer.txt"], "--plot layer.txt"),
    ],
)
def test_errors_name_what_is_wrong(words, expected, capsys):
    assert bench(*words) == 2
    assert expected in capsys.readouterr().err
