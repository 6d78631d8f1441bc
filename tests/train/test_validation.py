"""Benchmarks during training: through the code of ``llava-mole eval``, on every rank, logged."""

import json
import shutil

import pytest

from llava_mole.cli.main import main
from llava_mole.data.config import BenchmarkConfig, EvalConfig
from llava_mole.eval.validation import open_validation
from tests.eval import published
from tests.train.ranks import launch, write_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return published.everything(tmp_path_factory.mktemp("benchmarks"))


def values_with(runs, data, name, **train):
    values = runs.values(name, per_device_train_batch_size=4, eval_steps=2, max_steps=3, **train)
    own = values["data"]["domains"]["general"]["datasets"][0]["path"]
    values["data"]["eval"] = {
        "batch_size": 4,
        "benchmarks": [
            {"name": "pathvqa", "path": str(data), "max_new_tokens": 3},
            {"name": "ehub", "path": str(data), "limit": 1, "max_new_tokens": 3},
            {"name": "mine", "path": own, "limit": 5, "metric": "anls", "max_new_tokens": 3},
        ],
    }
    return values


def logged(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return {
        line["step"]: {k: v for k, v in line.items() if k.startswith("eval/")}
        for line in lines
        if any(k.startswith("eval/") for k in line)
    }


def train(runs, values) -> None:
    assert main(["train", "--config", str(write_config(runs.folder, values))]) == 0


@pytest.fixture(scope="module")
def validated(runs, data):
    values = values_with(runs, data, "validated")
    train(runs, values)
    return values


def test_each_line_is_logged_and_is_what_eval_says(runs, data, validated, tmp_path):
    run = runs.folder / "validated"
    found = logged(run)
    assert list(found) == [2, 3]
    expected = {"eval/pathvqa/Open", "eval/pathvqa/Closed", "eval/mine/score"}
    expected |= {f"eval/ehub/{part}" for part in ("All", "VR", "VP", "VKA", "VC", "OH")}
    assert set(found[3]) == expected
    # The finished run by the command: the same answers, byte for byte.
    words = ["eval", "--model-path", run, "--benchmarks", "pathvqa", "--data", data]
    words += ["--device", "cpu", "--max-new-tokens", 3, "--batch-size", 4, "--output", tmp_path]
    assert main([str(word) for word in words]) == 0
    kept = run / "validation" / "step-3"
    answers = (tmp_path / "pathvqa/answers.jsonl").read_bytes()
    assert (kept / "pathvqa/answers.jsonl").read_bytes() == answers
    results = json.loads((kept / "results.json").read_text())["benchmarks"]
    assert set(results) == {"pathvqa", "ehub.first1", "mine.first5"}
    assert results["pathvqa"]["lines"][0]["score"]["value"] == found[3]["eval/pathvqa/Open"]


def test_it_changes_nothing_about_training(runs, validated):
    values = runs.values("not_validated", per_device_train_batch_size=4, max_steps=3)
    train(runs, values)
    losses = [
        [json.loads(line)["loss"] for line in (runs.folder / name / "metrics.jsonl").open()
         if "loss" in json.loads(line)]
        for name in ("validated", "not_validated")
    ]  # fmt: skip
    assert losses[0] == losses[1]


def test_bfloat16_without_deepspeed(runs, data):
    """The tower's weights are bfloat16 and the trained projector's float32."""
    values = values_with(runs, data, "validated_bf16", bf16=True)
    values["model"]["dtype"] = "bfloat16"
    # An image a question: nothing is prefilled by a forward of its own, which autocast knows.
    del values["data"]["eval"]["benchmarks"][:2]
    train(runs, values)
    assert "eval/mine/score" in logged(runs.folder / "validated_bf16")[3]


def test_two_ranks_under_zero_2_log_what_one_does(runs, data, validated):
    values = values_with(
        runs, data, "validated_by_two", deepspeed="configs/deepspeed/zero2.json", save_steps=0
    )
    values["train"]["per_device_train_batch_size"] = 2
    done = launch(write_config(runs.folder, values), 2)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (runs.folder / name for name in ("validated", "validated_by_two"))
    assert set(logged(two)[3]) == set(logged(one)[3])
    answers = (two / "validation/step-2/pathvqa/answers.jsonl").read_text().splitlines()
    assert json.loads(answers[0])["id"] == "test-1"
    assert not list((two / "validation").rglob("*.partial*"))


def test_a_step_that_is_asked_again_is_asked_afresh(runs, data, validated):
    run = runs.folder / "validated"
    validation = open_validation(EvalConfig(benchmarks=[
        BenchmarkConfig("pathvqa", str(data), limit=1, max_new_tokens=2)
    ]), run)  # fmt: skip
    from llava_mole.model import load_run

    model, processor = load_run(run)
    first = validation(model, processor, 77)
    folder = run / "validation" / "step-77"
    (folder / "pathvqa.first1/answers.jsonl").write_text("left by a killed run\n")
    assert validation(model, processor, 77) == first
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ({"name": "ehub", "path": "nowhere"}, "ehub: nowhere is not there"),
        ({"name": "ehub", "path": "{data}/pathvqa"}, "not in the published layout"),
        ({"name": "a/b", "path": "{data}"}, "must be a name"),
        ({"name": "pathvqa", "path": "{data}", "limit": 0}, "limit is 0"),
        ({"name": "pathvqa", "path": "{data}", "limits": 1}, "limits"),
    ],
)
def test_what_can_not_be_asked_stops_before_training(runs, data, capsys, benchmark, message):
    values = runs.values("refused")
    benchmark = {k: v.format(data=data) if isinstance(v, str) else v for k, v in benchmark.items()}
    values["data"]["eval"] = {"benchmarks": [benchmark]}
    assert main(["train", "--config", str(write_config(runs.folder, values))]) == 2
    assert message in capsys.readouterr().err
    assert not (runs.folder / "refused").exists()


def test_sharded_models_are_refused(runs, data, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    values = values_with(runs, data, "sharded")
    try:
        assert main(["train", "--config", str(write_config(runs.folder, values))]) == 2
    finally:
        monkeypatch.delenv("ACCELERATE_USE_FSDP")
    assert "can't be asked under ZeRO-3 or FSDP" in capsys.readouterr().err
