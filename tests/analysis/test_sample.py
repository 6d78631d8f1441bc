"""What `show` shows is what training gets: ids, labels and pixels, held against references."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from llava_mole.analysis import sample
from llava_mole.data.tokens.encode import IGNORE_INDEX
from tests import tiny
from tests.analysis import helpers
from tests.data.helpers import expand2square


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    helpers.make(folder)
    return helpers.opened(folder / "set.jsonl", folder / "cache")


@pytest.fixture(scope="module")
def image_processor():
    return tiny.tiny_processor().image_processor


@pytest.mark.parametrize("conv_mode", ["vicuna_v1", "plain", "chatml"])
def test_tokens_are_the_encoders_ids_and_labels(records, image_processor, conv_mode):
    encoder = helpers.encoder(conv_mode=conv_mode)
    view = sample.look(records, 0, encoder, image_processor)
    encoded = encoder(records.record(0))
    ids, targets = [], []
    for token in view.tokens:
        assert token.position == len(ids)
        ids += [token.id] * token.count
        targets += [token.kind == "target"] * token.count
    assert ids == encoded.input_ids.tolist()
    assert targets == (encoded.labels != IGNORE_INDEX).tolist()
    assert view.num_supervised == sum(targets[1:])
    assert [token.count for token in view.tokens if token.kind == "image"] == [4]


@pytest.mark.parametrize("conv_mode", ["vicuna_v1", "plain", "chatml"])
def test_token_texts_are_the_prompt_and_targets_the_answers(records, image_processor, conv_mode):
    encoder = helpers.encoder(conv_mode=conv_mode)
    view = sample.look(records, 0, encoder, image_processor)
    turns = [{"role": t.role, "content": t.content} for t in records.record(0).turns]
    spans = encoder.template.spans(turns)
    text = "".join(span.text for span in spans)
    assert "".join(token.text for token in view.tokens) == text
    supervised = "".join(token.text for token in view.tokens if token.kind == "target")
    assert supervised == "".join(span.text for span in spans if span.is_target)
    for token in view.tokens:
        assert token.text in ("", text[token.start : token.end])
    # A character of three bytes is three tokens, the first of which shows it.
    start = text.index("猫")
    own = [token.text for token in view.tokens if (token.start, token.end) == (start, start + 1)]
    assert own == ["猫", "", ""]


def test_pictures_are_what_the_tower_gets(records, image_processor):
    view = sample.look(records, 1, helpers.encoder(), image_processor)
    assert [picture.name for picture in view.pictures] == ["0.png", "1.png"]
    for picture in view.pictures:
        original = Image.open(records.image_root / picture.name)
        assert (picture.size, picture.notes) == (original.size, ())
        colour = tuple(int(255 * mean) for mean in image_processor.image_mean)
        side = (tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
        square = expand2square(original, colour).resize(side, Image.Resampling.BICUBIC)
        assert np.array_equal(picture.pixels, np.asarray(square))
        again = image_processor(Image.fromarray(picture.pixels), return_tensors="pt")
        seen = image_processor(original, return_tensors="pt")["pixel_values"]
        assert torch.equal(again["pixel_values"], seen)


def test_what_reading_changes_is_noted(records, image_processor, tmp_path):
    Image.new("CMYK", (30, 20), (90, 10, 30, 5)).save(tmp_path / "0.gif", format="JPEG")
    (tmp_path / "0.gif").rename(tmp_path / "0.png")
    cmyk = dataclasses.replace(records, image_root=tmp_path)
    notes = sample.look(cmyk, 0, helpers.encoder(), image_processor).pictures[0].notes
    assert "CMYK" in notes[0]
    assert len(notes) == 2


def test_a_sample_that_does_not_fit_shows_where_its_tokens_went(records, image_processor):
    view = sample.look(records, 2, helpers.encoder(max_length=400), image_processor)
    assert "takes" in view.problem
    assert view.length > 1200
    assert view.max_length == 400
    assert sum(token.count for token in view.tokens) == view.length


def test_dropped_turns_and_their_images_are_not_shown(records, image_processor):
    first = records.record(1).turns
    record = dataclasses.replace(
        records.record(1), turns=(*first, *first), images=("0.png", "1.png", "0.png", "1.png")
    )

    class One:
        name, image_root = "mine", records.image_root

        def record(self, row):
            return record

    length = len(helpers.encoder()(records.record(1)).input_ids)
    encoder = helpers.encoder(max_length=length + 3, overlong="drop_turns")
    view = sample.look(One(), 0, encoder, image_processor)
    assert view.problem is None
    assert view.dropped_turns == 2
    assert [picture.name for picture in view.pictures] == ["0.png", "1.png"]
    assert view.length == length


def test_an_image_that_is_missing_is_the_samples_problem(records, image_processor):
    view = sample.look(records, 3, helpers.encoder(), image_processor)
    assert "gone.png" in view.problem
    assert view.pictures[0].pixels is None
    assert view.tokens


def test_a_record_that_the_template_refuses_shows_its_turns(records, image_processor):
    text = next(row for row in range(len(records)) if records.record(row).id == "text")
    view = sample.look(records, text, helpers.encoder(conv_mode="plain"), image_processor)
    assert "plain" in view.problem
    assert view.tokens == ()
    assert view.raw["turns"][0]["content"] == "What?"


def test_images_in_the_record_are_summed_up(records, image_processor):
    content = (records.image_root / "0.png").read_bytes()

    class One:
        name, image_root = "mine", records.image_root

        def record(self, row):
            return dataclasses.replace(records.record(0), images=(content,))

    view = sample.look(One(), 0, helpers.encoder(), image_processor)
    assert view.problem is None
    assert np.array_equal(
        view.pictures[0].pixels,
        sample.look(records, 0, helpers.encoder(), image_processor).pictures[0].pixels,
    )
    assert view.raw["images"][0]["bytes"] == len(content)


@pytest.mark.parametrize("options", [{}, {"indent": 1}])
@pytest.mark.parametrize("lines", [True, False])
def test_what_is_no_record_is_found_in_its_file(tmp_path, options, lines):
    values = [*helpers.rows(), "no object", {"id": "last", "conversations": []}]
    path = tmp_path / ("set.jsonl" if lines else "set.json")
    if lines:
        path.write_text("\n".join(helpers.json.dumps(value) for value in values) + "\n{broken \n")
    else:
        helpers.write_json(path, values, **options)
    (tmp_path / "images").mkdir()
    records = helpers.opened(path, tmp_path / "cache")
    found = {problem.id: sample.look_at_problem(problem) for problem in records.problems}
    assert found["slotless"].raw == values[4]
    assert found["last"].raw == values[-1]
    assert found["last"].problem
    if lines:
        broken = [sample.look_at_problem(problem).raw for problem in records.problems]
        assert "{broken \n" in broken


def test_a_problem_whose_file_has_gone_keeps_its_reason(tmp_path):
    path = helpers.write_json(tmp_path / "set.json", [{"id": "x"}])
    problem = helpers.opened(path, tmp_path / "cache").problems[0]
    path.unlink()
    view = sample.look_at_problem(problem)
    assert view.problem == problem.reason
    assert "cannot be read again" in view.raw
