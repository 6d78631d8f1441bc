"""One conversation's routing, against forwards of every prefix and a slow router."""

import pytest
import torch
from PIL import Image

from llava_mole.analysis.routing.tracing import trace
from tests import tiny
from tests.analysis.routing import helpers

MODULE = "llava_mole.analysis.routing.tracing"
QUESTION = "What? <image> é"


@pytest.fixture
def said(monkeypatch):
    """The tiny model's own words are noise; what it says is set here."""
    words = ["A cat"]
    monkeypatch.setattr(f"{MODULE}.answer", lambda *a, **k: words[0])
    return words


def picture(size=(40, 20)):
    return Image.linear_gradient("L").resize(size).convert("RGB")


def run(**options):
    model, processor = helpers.model(), helpers.processor()
    return model, processor, trace(model, processor, picture(), QUESTION, "a.png", **options)


def test_every_token_has_the_expert_it_had_when_it_was_written(said):
    model, processor, found = run()
    # Typed by a person, <image> is text.
    asked = "<image>\n" + QUESTION.replace("<image>", "< image>")
    expected = helpers.tokens_by_hand((asked.replace("< image>", "\0"), said[0]), 1)
    ids = torch.tensor([[i for i, _ in expected]])
    placeholder = tiny.tiny_tokenizer()("\0", add_special_tokens=False)["input_ids"][0]
    spelled = tiny.tiny_tokenizer()("< image>", add_special_tokens=False)["input_ids"]
    flat = []
    for id in ids[0].tolist():
        flat += spelled if id == placeholder else [id]
    ids = torch.tensor([flat])
    assert found.expert.shape == found.prob.shape == (2, ids.shape[1])
    pixels = processor.image_processor(picture(), return_tensors="pt")["pixel_values"]
    assert torch.equal(
        found.expert, helpers.slow_choices(model, input_ids=ids, pixel_values=pixels)[:, 0]
    )
    # Token by token, as in generation: nothing that comes later is in the forward.
    answer = [token for token in found.tokens if token.kind == "target"]
    assert "".join(token.text for token in answer) == f" {said[0]}</s>"
    for token in answer:
        until = ids[:, : token.position + 1]
        chosen = helpers.slow_choices(model, input_ids=until, pixel_values=pixels)[:, 0, -1]
        assert torch.equal(chosen, found.expert[:, token.position])


def test_parts_and_counts(said):
    _, _, found = run()
    assert found.square.covered(found.grid).tolist() == [[True, True], [True, True]]
    parts = found.parts
    assert list(parts) == ["image", "question", "answer"]
    assert sum(int(mask.sum()) for mask in parts.values()) == found.expert.shape[1]
    assert int(parts["image"].sum()) == helpers.P
    assert int(parts["answer"].sum()) == len(" A cat") + 1
    for part, mask in parts.items():
        for layer in range(2):
            column = found.expert[layer][mask].tolist()
            assert found.counts(part)[layer].tolist() == [column.count(k) for k in range(3)]


def test_padding_is_a_part_of_its_own():
    made = helpers.trace(side=4, size=(80, 20))
    # The image covers the square's rows 30 to 50 of 80: the middle two of four rows of cells.
    assert {name: int(mask.sum()) for name, mask in made.parts.items()} == {
        "image": 8,
        "padding": 8,
        "question": 3,
        "answer": 2,
    }
    start = made.image_positions.start
    assert made.parts["padding"][start : start + 4].all()
    assert made.parts["image"][start + 4 : start + 12].all()


def test_written(said):
    _, _, found = run()
    written = found.to_dict()
    assert written["answer"] == "A cat"
    assert written["grid"] == 2
    start = found.image_positions.start
    assert written["patches"][1][1][0] == int(found.expert[1, start + 2])
    assert [token["kind"] for token in written["tokens"]].count("answer") == 7
    assert written["tokens"][0]["experts"] == found.expert[:, 0].tolist()


def test_without_an_answer_the_question_is_all(said):
    said[0] = ""
    _, _, found = run()
    assert found.answer == ""
    assert all(token.kind != "target" for token in found.tokens)
    assert found.expert.shape[1] == sum(token.count for token in found.tokens)
    assert "".join(token.text for token in found.tokens).endswith("ASSISTANT:")


def test_tokens_that_form_no_square_are_shown_as_words_only(said, monkeypatch):
    monkeypatch.setattr(f"{MODULE}.grid_of", lambda *_: None)
    _, _, found = run()
    assert found.grid is None
    assert list(found.parts) == ["image", "question", "answer"]
    assert found.to_dict()["grid"] is None
    assert len(found.to_dict()["patches"][0]) == helpers.P


def test_the_models_own_answer(said, monkeypatch):
    monkeypatch.undo()
    _, _, found = run(max_new_tokens=5)
    words = "".join(token.text for token in found.tokens if token.kind == "target")
    assert found.answer in words
