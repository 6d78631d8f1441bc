"""``llava-mole routes`` on a tiny run with a MoLE adapter, from files to files."""

import json

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from PIL import Image

from llava_mole.cli.main import main
from llava_mole.model import ModelConfig, build_model, build_processor, load_run, save_projector
from tests import tiny
from tests.cli.tiny_mole import write_run, write_set

QUESTIONS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finetuned run (untrained experts), and a question set with images of five colours."""
    folder = tmp_path_factory.mktemp("eval")
    write_run(folder)
    write_set(folder)
    return folder


def run(folder, *words) -> int:
    run = folder / "run"
    return main([str(w) for w in ("routes", "--model-path", run, "--device", "cpu", *words)])


def test_routes_counts_every_token_of_every_record(folder, tmp_path):
    picture = tmp_path / "routing.png"
    words = ["--data", f"mine={folder / 'set.jsonl'}", "--output", picture, "--batch-size", "2"]
    assert run(folder, *words) == 0
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 100
    load = json.loads(picture.with_suffix(".json").read_text())["mine"]
    assert [len(layer) for layer in load["mean"]] == [3, 3]
    assert [sum(layer) for layer in load["mean"]] == pytest.approx([1, 1])

    # Reference: one record at a time, its text from the saved Jinja template, the router's scores
    # by hand.
    model, processor = load_run(folder / "run")
    layer = model.get_base_model().model.language_model.layers[0]
    seen = []
    layer.post_attention_layernorm.register_forward_hook(lambda m, i, output: seen.append(output))
    shares, answers = [], [0] * 3
    for index in range(QUESTIONS):
        answer = "yes" if index < 3 else "no"
        turns = [
            {"role": "user", "content": "<image>\nWhat?"},
            {"role": "assistant", "content": answer},
        ]
        text = processor.apply_chat_template(turns)
        inputs = processor(
            text=text, images=Image.open(folder / f"{index}.png"), return_tensors="pt"
        )
        model(**inputs)
        weight = layer.mlp.mole_router["default"].weight
        choice = (seen.pop()[0].float() @ weight.T).argmax(-1).tolist()
        shares.append([choice.count(k) / len(choice) for k in range(3)])
        # A space, one token a letter, and the end of the turn.
        for expert in choice[-len(answer) - 2 :]:
            answers[expert] += 1
    means = [sum(column) / QUESTIONS for column in zip(*shares, strict=True)]
    assert load["mean"][0] == pytest.approx(means, abs=1e-6)
    std = [(sum((row[k] - means[k]) ** 2 for row in shares) / QUESTIONS) ** 0.5 for k in range(3)]
    assert load["std"][0] == pytest.approx(std, abs=1e-6)
    assert load["by_kind"]["answer"][0] == pytest.approx([n / sum(answers) for n in answers])
    assert load["tokens"]["image"] == QUESTIONS * tiny.NUM_IMAGE_TOKENS
    assert load["tokens"]["answer"] == sum(answers)


def test_sets_an_image_and_the_runs_log_on_one_page(folder, tmp_path, capsys):
    file = folder / "set.jsonl"
    metrics = {f"routing/{n}/expert_{k}": 1 / 3 for n in ("mine", "all") for k in range(3)}
    metrics |= {"routing/jensen_shannon": 0.1, "routing/mine/entropy": 1.0}
    log = folder / "run" / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": n, **metrics}) + "\n" for n in (1, 2)))
    words = ["--data", f"one={file}", f"two={file}", "--image-file", folder / "1.png"]
    words += ["--question", "What is <that>?", "--layers", "1", "--max-new-tokens", "4"]
    try:
        assert run(folder, *words, "--limit", "2", "--output", tmp_path / "routing.png") == 0
    finally:
        log.unlink()
    names = {"png": ["", ".kinds", ".sets", ".training", ".image"], "html": [""]}
    names["json"] = ["", ".sets", ".training", ".image"]
    expected = {f"routing{name}.{suffix}" for suffix, all in names.items() for name in all}
    assert {f.name for f in tmp_path.iterdir()} == expected
    out = capsys.readouterr().out
    assert "data sets differ most in layer" in out
    assert all(f"wrote {tmp_path / name}" in out for name in expected)
    sets = json.loads((tmp_path / "routing.sets.json").read_text())
    # The same file under two names: nothing tells them apart.
    assert sets["mutual_information"]["bits"] == pytest.approx([0, 0], abs=1e-9)
    assert json.loads((tmp_path / "routing.training.json").read_text())["steps"] == [1, 2]
    image = json.loads((tmp_path / "routing.image.json").read_text())
    assert image["question"] == "What is <that>?"
    assert torch.tensor(image["patches"]).shape == (2, 2, 2)
    page = (tmp_path / "routing.html").read_text()
    assert page.count("data:image/png") == 4
    assert "What is &lt;that&gt;?" in page
    assert ">layer 1</button>" in page
    assert ">layer 0</button>" not in page


def test_an_image_alone(folder, tmp_path):
    words = ["--image-file", folder / "0.png", "--max-new-tokens", "2"]
    assert run(folder, *words, "--output", tmp_path / "x.svg") == 0
    names = {f.name for f in tmp_path.iterdir()}
    assert names == {"x.html", "x.image.svg", "x.image.json"}
    image = json.loads((tmp_path / "x.image.json").read_text())
    assert image["question"] == "Describe this image."


def test_tokens_that_form_no_square(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("llava_mole.analysis.routing.tracing.grid_of", lambda *_: None)
    words = ["--image-file", folder / "0.png", "--max-new-tokens", "2"]
    assert run(folder, *words, "--output", tmp_path / "x.png") == 0
    assert "4 tokens form no square" in capsys.readouterr().out


def broken(folder):
    (folder / "broken.png").write_bytes(b"no image")
    return folder / "broken.png"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --data NAME=FILE, --image-file IMG, or both"),
        (["--image-file", "gone.png"], "no such file"),
        (["--image-file", broken], "broken.png: image 'broken.png': not a readable"),
        (["--image-file", "0.png", "--output", "0.png/x.png"], "--output: can't write to 0.png: "),
        (["--data", "set.jsonl"], "NAME=FILE"),
        (["--question", "Why?", "--data", "a=b"], "--question goes with --image-file"),
        (["--question", " ", "--image-file", "x"], "--question is empty"),
        (["--image-file", "x", "--limit", "0"], "--limit must be >= 1"),
        (["--image-file", "x", "--output", "x.json"], "--output x.json"),
        (["--image-file", "0.png", "--layers", "2"], "layer 2 has no experts"),
    ],
)
def test_errors_are_one_message(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(folder)
    words = [word(folder) if callable(word) else word for word in words]
    assert run(folder, *words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("llava-mole routes: error: ")
    assert message in said
    assert not list(folder.glob("routing*"))


@pytest.mark.parametrize("adapter", ["lora", None])
def test_a_run_without_experts(tmp_path, capsys, adapter):
    section = tiny.tiny_model_section(tmp_path)
    model = build_model(ModelConfig(**section))
    path = tmp_path / "run"
    if adapter:
        get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(path)
    else:
        save_projector(model, path)
    build_processor(ModelConfig(**section)).save_pretrained(path)
    (path / "config.yaml").write_text(yaml.safe_dump({"model": section}))
    write_set(tmp_path)
    assert run(tmp_path, "--data", f"a={tmp_path / 'set.jsonl'}") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"--model-path {path}: the model has no MoLE adapter" in said
