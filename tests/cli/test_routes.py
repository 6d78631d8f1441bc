"""``llava-mole routes`` on a tiny run with a MoLE adapter, from files to files."""

import json

import pytest
from PIL import Image

from llava_mole import generate
from llava_mole.cli.main import main
from llava_mole.model import load_run
from tests.cli.tiny_mole import write_run, write_set

QUESTIONS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finetuned run (untrained experts), and a question set with images of five colours."""
    folder = tmp_path_factory.mktemp("eval")
    write_run(folder)
    write_set(folder)
    return folder


def run(*words) -> int:
    return main([str(word) for word in words])


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
