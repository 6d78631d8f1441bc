"""The decode benchmark at a tiny size: it measures what it says, and only what is right."""

import json
import re

import pytest
import torch
import yaml
from peft import get_peft_model

from llava_mole import MoleConfig
from llava_mole.bench import decode
from llava_mole.bench.small import small_llava
from llava_mole.cli.main import main
from llava_mole.model import ModelConfig, build_model, build_processor
from llava_mole.tuner import fused
from tests import tiny

TINY = ["--experts", "2", "--new-tokens", "3", "--rounds", "3", "--rank", "4", "--device", "cpu"]
SIZE = (64, 128, 1)
ARMS = ["base", "LoRA", "MoLE K=2"]


def bench(*words) -> int:
    return main(["bench", "decode", *TINY, *map(str, words)])


def test_the_command_measures_and_writes_every_arm(tmp_path, capsys):
    file = tmp_path / "out" / "decode.json"
    status = bench("--size", "64,128,1", "--batch-sizes", "1,2", "--json", file)
    values = json.loads(file.read_text())
    figures = {figure["name"]: figure for figure in values["figures"]}
    assert list(figures) == [
        f"batch {rows}, {what}, {arm} / LoRA"
        for rows in (1, 2)
        for what in ("answer", "decode step")
        for arm in ARMS
    ]
    for name, figure in figures.items():
        assert (figure["target"] == 1.05) == ("MoLE" in name)
        assert (figure["value"] == 1) == (", LoRA" in name)
        assert 0.1 < figure["value"] < 10
        assert " ms" in figure["note"]
    assert status == int(any(figure["met"] is False for figure in figures.values()))
    assert set(values["versions"]) == {"python", "torch", "transformers", "peft"}
    assert values["settings"]["new_tokens"] == 3
    assert values["threads"] == 1
    out = capsys.readouterr().out
    assert len(re.findall(r"MoLE K=2.*<= 1.05 x", out)) == 4


def test_a_runs_base_model_is_measured(tmp_path, capsys):
    section = tiny.tiny_model_section(tmp_path)
    config = ModelConfig(**section)
    adapter = MoleConfig(num_experts=3, r=2, modules_to_save=["multi_modal_projector"])
    get_peft_model(build_model(config), adapter).save_pretrained(tmp_path / "run")
    build_processor(config).save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"model": section}))
    assert bench("--model-path", tmp_path / "run", "--batch-sizes", "2") in (0, 1)
    assert "batch 2, decode step, MoLE K=2" in capsys.readouterr().out


def arms_of(dtype="float32"):
    settings = decode.Settings(experts=(2,), batch_sizes=(2,), r=4, size=SIZE, dtype=dtype)
    base, processor = small_llava(SIZE, dtype)
    return decode._arms(base, settings), decode._prompts(processor, 2)


@torch.inference_mode()
def test_arms_share_their_base_and_differ_in_their_adapters():
    arms, inputs = arms_of()
    assert list(arms) == ARMS
    head = arms["base"].lm_head.weight
    logits = []
    for model in arms.values():
        inner = model if model is arms["base"] else model.get_base_model()
        assert inner.lm_head.weight.data_ptr() == head.data_ptr()
        logits.append(model(**inputs).logits)
        ids = decode.generate(model, inputs, 5)
        assert ids.shape == (2, inputs["input_ids"].shape[1] + 5)
    assert not torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[1], logits[2])
    lora = [n for n, _ in arms["LoRA"].named_parameters() if "lora_B" in n]
    assert len(lora) == 7  # q k v o, gate up down


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_decode_steps_equal_one_forward(dtype):
    arms, inputs = arms_of(dtype)
    model = arms["MoLE K=2"]
    steps = decode._Steps(model, inputs, 4)
    assert 1 <= decode._check("MoLE", model, steps) <= 2
    steps.rewind()
    rows = torch.stack([steps.step(index) for index in range(4)], dim=1).float()
    whole = torch.cat([inputs["input_ids"], steps.tokens], dim=1)
    given = {**inputs, "input_ids": whole, "attention_mask": steps.mask}
    given["position_ids"] = steps.positions
    expected = model(**given).logits[:, -4:].float()
    bound = {"float32": 1e-5, "bfloat16": 0.1}[dtype] * expected.abs().max()
    assert (rows - expected).abs().max() < bound


@torch.inference_mode()
def test_what_is_wrong_is_not_timed(monkeypatch):
    right = fused.ffn_by_token

    def wrong(*arguments):
        y, route = right(*arguments)
        return 1.1 * y, route

    monkeypatch.setattr(fused, "ffn_by_token", wrong)
    settings = decode.Settings(experts=(3,), batch_sizes=(1,), size=SIZE, rounds=3, new_tokens=2)
    with pytest.raises(RuntimeError, match=r"MoLE K=3: logits differ .* not timed"):
        decode.run(settings)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rounds", "1"], "--rounds 1"),
        (["--experts", "0"], "--experts"),
        (["--size", "64,128"], "WIDTH,FFN,LAYERS"),
        (["--size", "100,128,1"], "--size"),
        (["--model-path", "/no/such/run"], "/no/such/run"),
        (["--device", "abacus"], "--device"),
        (["--json", "/"], "--json /: cannot be written"),
        (["--json", "/dev/null/decode.json"], "--json /dev/null/decode.json: cannot be written"),
    ],
)
def test_errors_name_what_is_wrong(words, expected, capsys):
    assert bench(*words) == 2
    assert expected in capsys.readouterr().err
