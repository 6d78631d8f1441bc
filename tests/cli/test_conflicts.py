"""``llava-mole conflicts`` on tiny runs, from files to files."""

import json

import pytest
import yaml
from PIL import Image

from llava_mole.cli.main import main
from llava_mole.config import from_dict
from llava_mole.train.config import RunConfig
from llava_mole.train.run import train
from tests.train.tiny_run import run_values, write_dataset

LETTERS = "abdeglnru "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two data sets of 60 samples, and a config of three domains, two of them one file."""
    folder = tmp_path_factory.mktemp("conflicts")
    values = run_values(folder)
    squares = write_dataset(folder / "more", "squares", 120, 0)
    texts = write_dataset(folder / "more", "texts", 60, 1, text_only_every=1)
    # Other letters than a colour's.
    rows = json.loads(texts.read_text())
    for row in rows:
        answer = row["conversations"][1]
        answer["value"] = answer["value"].translate({ord(c): 48 + i for i, c in enumerate(LETTERS)})
    texts.write_text(json.dumps(rows))
    values["data"]["domains"] = {
        "general": {"datasets": [{"name": "squares", "path": str(squares)}]},
        "again": {"datasets": [{"name": "squares_again", "path": str(squares)}]},
        "document": {"datasets": [{"name": "texts", "path": str(texts)}]},
    }
    write(folder / "run.yaml", values)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """A finished MoLE run of four steps."""
    values = yaml.safe_load((folder / "run.yaml").read_text())
    return train(from_dict(RunConfig, values, "test"))


def write(path, values) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def run(*words) -> int:
    return main(["conflicts", *map(str, words)])


def measured(folder, tmp_path, *words):
    """Runs the command on eight batches of four; the numbers beside the picture."""
    picture = tmp_path / "made" / "conflicts.png"
    given = [*words, "--batches", 8, "--batch-size", 4, "--device", "cpu", "--output", picture]
    assert run(*given) == 0
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 400
    return json.loads(picture.with_suffix(".json").read_text())


def pairs(part: dict) -> dict:
    return {tuple(pair["domains"]): pair for pair in part["pairs"]}


def test_one_file_under_two_names_does_not_conflict(folder, tmp_path, capsys):
    found = measured(folder, tmp_path, "--config", folder / "run.yaml")
    text = capsys.readouterr().out
    same = pairs(found["overall"]["adapter"])["general", "again"]
    assert same["low"] <= 1 == same["high"]
    assert same["cosine"] > 0.8
    assert same["plain"] < same["cosine"]
    other = pairs(found["overall"]["adapter"])["general", "document"]
    assert other["high"] < same["cosine"]
    assert found["adapter"] == {"type": "lora", "r": 4}
    assert "Plain LoRA of rank 4 in place of the config's MoLE (K = 3)" in text
    assert "B is zero here, so the gradient of every A is exactly 0" in text
    assert set(found["factors"]) == {"B"}
    assert found["weights"] == "at initialisation"
    assert (found["batches"], found["batch_size"], found["seed"]) == (8, 4, 7)
    assert len(found["cells"]) == 2 * 7
    assert found["loss"]["document"] > 0
    assert "general – document" in text
    assert "conflicts.json" in text


def test_after_some_steps_both_factors_move(folder, tmp_path, capsys):
    words = ("--config", folder / "run.yaml", "train.learning_rate=0.01", "--steps-before", 6)
    found = measured(folder, tmp_path, *words)
    assert set(found["factors"]) == {"A", "B"}
    assert found["weights"] == "after 6 steps on the mixture"
    assert "exactly 0" not in capsys.readouterr().out
    assert run(*words[:2], "--steps-before", 2, "--device", "cpu") == 2
    assert "take more steps, or add train.warmup_steps=0" in capsys.readouterr().err


def test_a_trained_run_brings_its_adapter_and_its_data(folder, trained, tmp_path, capsys):
    found = measured(folder, tmp_path, "--model-path", trained)
    assert found["adapter"] == {"type": "mole", "r": 4, "num_experts": 3}
    assert set(found["factors"]) == {"A", "B"}
    assert "router" in found["linears"]
    assert found["names"] == ["general", "again", "document"]
    assert "MoLE, K = 3, r = 4, weights of " in capsys.readouterr().out
    words = ("--config", folder / "run.yaml", "--only", "document", "general", "--seed", 3)
    # The config gives the data alone: its model would be too short for any sample.
    words = (*words, "model.model_max_length=8")
    found = measured(folder, tmp_path, "--model-path", trained / "checkpoint-4", *words)
    assert found["names"] == ["general", "document"]
    assert found["seed"] == 3


def test_the_configs_own_adapter_data_sets_and_overrides(folder, tmp_path):
    words = ("--config", folder / "run.yaml", "--by", "dataset", "--adapter", "config")
    found = measured(folder, tmp_path, *words, "adapter.r=2", "adapter.num_experts=2")
    assert found["adapter"] == {"type": "mole", "r": 2, "num_experts": 2}
    assert found["names"] == ["squares", "squares_again", "texts"]
    assert found["overrides"] == ["adapter.r=2", "adapter.num_experts=2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --config RUN.yaml, --model-path RUN or --runs"),
        (("--mix", "x"), "--mix goes with --runs"),
        (("--runs", "a=x", "--config", "y"), "--runs reads results alone and takes no --config"),
        (("--runs", "a=x", "b"), "write it as NAME=FILE"),
        (("--model-path", "x", "--adapter", "lora"), "takes no --adapter"),
        (("--model-path", "gone"), "--model-path gone: no config.yaml there"),
        (("--config", "RUN", "--batches", "3"), "--batches is 3; it must be >= 4"),
        (("--config", "RUN", "--batch-size", "0"), "--batch-size is 0; it must be >= 1"),
        (("--config", "RUN", "--output", "x.txt"), "--output x.txt: name it .png, .svg or .pdf"),
        (("--config", "RUN", "stage=pretrain", "model.conv_mode=plain"), "stage is 'pretrain'"),
        (("--config", "RUN", "adapter.type=none"), "add adapter.type=lora"),
        (("--config", "RUN", "--only", "medicine"), "there are general, again, document"),
        (("--config", "RUN", "--only", "general"), "--only names one domain, 'general'"),
        (("--config", "RUN", "--output", "/proc/c.png"), "--output: can't write to"),
        (("--config", "RUN", "--batches", "80"), "'general' has too few samples: 640 are to be"),
        (("--config", "RUN", "data.domains.general.wieght=1"), "did you mean 'weight'?"),
        (
            ("--config", "RUN", "--model-path", "x", "--steps-before", "9"),
            "--steps-before trains a new adapter and --model-path names a trained one",
        ),
    ],
)
def test_errors_say_what_to_do(folder, tmp_path, capsys, monkeypatch, words, message):
    config = str(folder / "run.yaml")
    monkeypatch.chdir(tmp_path)
    assert run(*(config if word == "RUN" else word for word in words), "--device", "cpu") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_without_an_adapter_is_refused(folder, tmp_path, capsys):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "config.yaml").write_text((folder / "run.yaml").read_text())
    assert run("--model-path", run_folder, "--device", "cpu") == 2
    assert "no adapter_config.json there" in capsys.readouterr().err


def test_the_transfer_matrix_is_drawn(tmp_path, capsys):
    line = {"kind": "total", "name": "All", "part": "", "questions": 9, "failed": 0, "strict": None}
    words = []
    for name, value in (("general", 70.0), ("document", 40.0), ("mix", 60.0)):
        score = {"value": value, "low": value - 5, "high": value + 5}
        entry = {"lines": [{**line, "score": score}], "settings": {}, "questions": 9}
        (tmp_path / name / "eval").mkdir(parents=True)
        results = {"benchmarks": {"ehub": entry}}
        (tmp_path / name / "eval" / "results.json").write_text(json.dumps(results))
        words.append(f"{name}={tmp_path / name}")
    picture = tmp_path / "transfer.png"
    assert run("--runs", *words[:2], "--mix", tmp_path / "mix", "--output", picture) == 0
    text = capsys.readouterr().out
    assert "70.0 [65.0, 75.0] *" in text
    assert "-10.0 [-17.1, -2.9]" in text
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 200
    assert json.loads(picture.with_suffix(".json").read_text())["best"] == ["general"]
