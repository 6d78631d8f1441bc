"""``llava-mole eval`` and ``routes`` on a tiny run with a MoLE adapter, from files to files."""

import json
import shutil

import pytest
import yaml
from peft import get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

from llava_mole import MoleConfig, generate
from llava_mole.cli.main import main
from llava_mole.model import ModelConfig, build_model, build_processor, load_run
from tests import tiny

QUESTIONS = 5
ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finetuned run (untrained experts), and a question set with images of five colours."""
    folder = tmp_path_factory.mktemp("eval")
    section = tiny.tiny_model_section(folder)
    config = ModelConfig(**section)
    adapter = MoleConfig(num_experts=3, r=2, modules_to_save=["multi_modal_projector"])
    get_peft_model(build_model(config), adapter).save_pretrained(folder / "run")
    build_processor(config).save_pretrained(folder / "run")
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump({"model": section}))
    rows = []
    for index in range(QUESTIONS):
        Image.new("RGB", (30, 20), (50 * index, 200, 30)).save(folder / f"{index}.png")
        turns = [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "yes" if index < 3 else "no"},
        ]
        rows.append({"id": str(index), "image": f"{index}.png", "conversations": turns})
    (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(*words) -> int:
    return main([str(word) for word in words])


def test_eval_asks_the_model_and_scores_beside_its_baselines(folder, tmp_path, capsys):
    words = ["eval", "--model-path", folder / "run", "--data", f"mine={folder / 'set.jsonl'}"]
    words += ["--training", f"mine={folder / 'set.jsonl'}", "--shuffle-images", "--device", "cpu"]
    words += ["--output", tmp_path, "--batch-size", "2", "--max-new-tokens", "4"]
    assert run(*words) == 0
    results = json.loads((tmp_path / "results.json").read_text())["mine"]
    assert set(results) == {"accuracy", "shuffled_images", "majority_answer"}
    assert results["majority_answer"]["hits"] == 3
    assert f"mine  {QUESTIONS:>5}" in capsys.readouterr().out

    model, processor = load_run(folder / "run")
    answers = [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines()]
    for index, answer in enumerate(answers):
        image = Image.open(folder / f"{index}.png").convert("RGB")
        turns = [{"role": "user", "content": "<image>\nWhat?"}]
        expected = generate.answer(model, processor, image, turns, max_new_tokens=4)
        assert answer["prediction"] == expected


def test_answers_of_another_model_are_not_taken_for_this_ones(folder, tmp_path, capsys):
    words = ["eval", "--data", f"mine={folder / 'set.jsonl'}", "--output", tmp_path / "out"]
    words += ["--device", "cpu", "--max-new-tokens", "2", "--model-path"]
    run_dir = tmp_path / "run"
    shutil.copytree(folder / "run", run_dir)
    assert run(*words, run_dir) == 0
    answers = (tmp_path / "out" / "mine.jsonl").read_bytes()
    assert run(*words, run_dir) == 0
    weights = load_file(run_dir / ADAPTER)
    save_file({key: value + 1 for key, value in weights.items()}, run_dir / ADAPTER)
    assert run(*words, run_dir) == 2
    assert f"another {ADAPTER}" in capsys.readouterr().err
    assert (tmp_path / "out" / "mine.jsonl").read_bytes() == answers


def test_a_wrong_model_path_leaves_no_folder_behind(folder, tmp_path, capsys):
    missing = tmp_path / "no_such_run"
    assert run("eval", "--data", f"mine={folder / 'set.jsonl'}", "--model-path", missing) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not missing.exists()


def test_routes_counts_every_token_of_every_question(folder, tmp_path, capsys):
    picture = tmp_path / "routing.png"
    words = ["routes", "--model-path", folder / "run", "--data", f"mine={folder / 'set.jsonl'}"]
    assert run(*words, "--output", picture, "--batch-size", "2", "--device", "cpu") == 0
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 100
    load = json.loads(picture.with_suffix(".json").read_text())["mine"]
    assert [len(layer) for layer in load["mean"]] == [3, 3]
    assert [sum(layer) for layer in load["mean"]] == pytest.approx([1, 1])

    # Reference: one question at a time, the router's scores by hand.
    model, processor = load_run(folder / "run")
    layer = model.get_base_model().model.language_model.layers[0]
    seen = []
    layer.post_attention_layernorm.register_forward_hook(lambda m, i, output: seen.append(output))
    shares = []
    for index in range(QUESTIONS):
        image = Image.open(folder / f"{index}.png").convert("RGB")
        prompt = [(image, [{"role": "user", "content": "<image>\nWhat?"}])]
        model(**generate.encode_prompts(processor, prompt))
        weight = layer.mlp.mole_router["default"].weight
        choice = (seen.pop()[0].float() @ weight.T).argmax(-1)
        shares.append([float((choice == k).float().mean()) for k in range(3)])
    means = [sum(column) / QUESTIONS for column in zip(*shares, strict=True)]
    assert load["mean"][0] == pytest.approx(means, abs=1e-6)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "set.jsonl"], "NAME=FILE"),
        (["--data", "a=nowhere.jsonl"], "nowhere.jsonl"),
        (["--data", "a={set}", "a={set}"], "two sets"),
        (["--data", "a={set}", "--training", "b={set}"], "no --data set"),
        (["--data", "a={set}", "--batch-size", "0"], "--batch-size"),
        (["--data", "a={bad}"], "bad.jsonl:1"),
        (["--data", "a={set}", "--device", "abacus"], "--device"),
        (["--data", "a={set}", "--device", "cuda:99"], "GPUs"),
        (["--data", "a={set}", "text={text}", "--shuffle-images"], "text.jsonl:1"),
    ],
)
def test_errors_name_what_is_wrong(folder, tmp_path, capsys, words, expected):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "1", "conversations": []}\n')
    text = tmp_path / "text.jsonl"
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    text.write_text(json.dumps({"id": "1", "conversations": turns}) + "\n")
    words = [word.format(set=folder / "set.jsonl", bad=bad, text=text) for word in words]
    assert run("eval", "--model-path", folder / "run", *words, "--output", tmp_path) == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.glob("a*.jsonl")), "it asked before it looked"
