import collections
import hashlib
import pickle

import pytest

from llava_mole.data.records import BadRecord, Record
from llava_mole.data.sources import open_source
from llava_mole.data.sources.source import Piece
from tests.data.sources import published
from tests.data.sources.published import b64, m3it_dataset, picture

JPEG = b64(picture(12, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published.m3it(tmp_path_factory.mktemp("m3it")))


def read(folder, **options) -> list:
    source = open_source("m3it", str(folder), **options)
    return [item for piece in source.pieces() for item in source.read(piece)]


def of(records, source) -> list[Record]:
    return [record for record in records if record.source == f"m3it/{source}"]


def test_the_training_split_of_everything_in_the_card(folder):
    counts = collections.Counter((record.source, record.task) for record in read(folder))
    assert counts == {
        ("m3it/coco", "captioning"): 5,
        ("m3it/coco-cn", "captioning"): 1,
        ("m3it/msrvtt", "captioning"): 1,
        ("m3it/mocheg", "classification"): 1,
        ("m3it/imagenet", "classification"): 2,
        ("m3it/snli-ve", "classification"): 1,
        ("m3it/nlvr", "reasoning"): 1,
        ("m3it/a-okvqa", "vqa"): 1,
        ("m3it/okvqa", "vqa"): 1,
        ("m3it/shapes", "vqa"): 2,
        ("m3it/vist", "generation"): 1,
        ("m3it/visual-dialog", "generation"): 6,
    }


def test_several_images_stay_several_and_in_order(folder):
    records = read(folder)
    (story,) = of(records, "vist")
    assert story.images == tuple(picture(6 + k, 6) for k in range(5))
    assert story.turns[0].content == "<image>\n" * 5 + "Tell a story."
    assert story.turns[1].content == "One. Two. Three. Four. Five."
    (pair,) = of(records, "nlvr")
    assert pair.images == (picture(12, 8), picture(9, 9, (0, 0, 255), "PNG"))
    (video,) = of(records, "msrvtt")
    assert video.images == tuple(picture(8, 6, (k * 30, 0, 0)) for k in range(4))


def test_a_row_of_five_captions_is_five_samples(folder):
    records = of(read(folder), "coco")
    assert [record.turns[1].content for record in records] == [f"caption {k}" for k in range(5)]
    assert len({record.id for record in records}) == 5
    assert len({record.turns[0].content for record in records}) > 1, "an instruction each"


def test_chinese_stays_as_it_is(folder):
    (record,) = of(read(folder), "coco-cn")
    assert record.turns[0].content == "<image>\n用一句话描述这张图片。"
    assert record.turns[1].content == "一只猫坐在椅子上。"


def test_outputs_put_together_as_the_loader_does(folder):
    records = read(folder)
    (answer,) = of(records, "a-okvqa")
    assert answer.turns[1].content == "He stands by the street. So the answer is cab."
    (okvqa,) = of(records, "okvqa")
    assert okvqa.turns[1].content == "They play tennis.", "the paraphrase of train_v2"
    assert [record.turns[1].content for record in of(records, "shapes")] == [
        "The answer is yes.",
        "The answer is no.",
    ]
    (entailment,) = of(records, "snli-ve")
    assert entailment.turns[0].content == (
        "<image>\nDoes the image say that A man sleeps.? Answer yes, no or maybe."
    )
    assert entailment.turns[1].content == "maybe\nRationale: His eyes can't be seen."


def test_classes_are_chosen_among_ten(folder):
    for record, right in zip(of(read(folder), "imagenet"), (2, 11), strict=True):
        _, _, *options = record.turns[0].content.split("\n")
        assert len(options) == 10
        assert len({option[4:] for option in options}) == 10
        assert [option[:4] for option in options] == [f"({letter}) " for letter in "ABCDEFGHIJ"]
        assert record.turns[1].content in options
        assert record.turns[1].content[4:] == f"class{right}, kind of {right}"


def test_the_instruction_depends_on_seed_data_set_and_line_alone(folder):
    def instructions(records):
        return [(record.id, record.turns[0].content) for record in of(records, "visual-dialog")]

    everything = instructions(read(folder))
    assert len({content.split("\n")[1] for _, content in everything}) == 2, "both are drawn"
    assert instructions(read(folder, datasets=("visual-dialog",))) == everything
    source = pickle.loads(pickle.dumps(open_source("m3it", folder)))
    (piece,) = [piece for piece in source.pieces() if "visual_dialog" in piece.file]
    # Another cut of the same file.
    with open(piece.file, "rb") as file:
        first = len(file.readline())
    halves = (
        Piece(piece.file, 0, first, 1),
        Piece(piece.file, first, piece.stop, 2),
    )
    assert instructions([r for half in halves for r in source.read(half)]) == everything
    others = {tuple(instructions(read(folder, seed=seed))) for seed in range(6)}
    assert len(others) > 1


def test_the_instruction_is_the_same_in_every_process(folder):
    """By SHA-256 of seed, data set and line: never by Python's own hash, which is salted."""
    known = ["Go on with the dialog.", "Answer in the dialog."]
    for line, record in enumerate(read(folder, datasets=("visual-dialog",), seed=3), start=1):
        digest = hashlib.sha256(f"3/visual-dialog/{line}/instruction 0".encode()).digest()
        expected = known[int.from_bytes(digest[:8], "big") % 2]
        assert record.turns[0].content.split("\n")[1] == expected


def test_the_rephrased_edition_is_read_only_by_its_name(folder):
    (record,) = read(folder, datasets=("visual-dialog-rephrased",))
    assert record.source == "m3it/visual-dialog-rephrased"
    assert record.turns[0].content == "<image>\nTalk.\nQ: who?"
    assert record.turns[1].content == "There is nobody to be seen."


def test_choices(folder):
    def sources(**options):
        return {record.source.removeprefix("m3it/") for record in read(folder, **options)}

    assert sources(groups=("reasoning",)) == {"nlvr"}
    assert sources(groups=("kvqa",), datasets=("coco",)) == {"okvqa", "a-okvqa", "coco"}
    # By the folder's name as well.
    assert sources(datasets=("visual_dialog", "vsr")) == {"visual-dialog", "vsr"}
    everything = sources()
    assert sources(exclude=("video", "chinese", "vqa", "coco")) == everything - {
        *("msrvtt", "coco-cn", "okvqa", "a-okvqa", "shapes", "coco")
    }
    assert [record.turns[1].content for record in read(folder, split="val")] == [
        "of the validation split"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": ("vqqa",)}, "'vqqa'.*captioning, chinese, classification"),
        ({"datasets": ("cocoo",)}, "'cocoo'.*a-okvqa, coco, coco-cn"),
        ({"exclude": ("x",)}, "exclude names 'x'"),
        ({"split": "training"}, "choose one of train, val, test"),
        ({"datasets": ("winoground",)}, "no train file, only .'winoground_test.jsonl'."),
        ({"groups": ("vqa",), "split": "test"}, "nothing in"),
    ],
)
def test_a_wrong_choice_names_the_right_ones(folder, options, message):
    with pytest.raises(ValueError, match=message):
        open_source("m3it", folder, **options).files()


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not M3IT as published"):
        open_source("m3it", str(tmp_path)).files()


def test_two_editions_that_no_rule_tells_apart_are_refused(tmp_path):
    row = {"inputs": "q", "image_str": JPEG, "outputs": "a"}
    m3it_dataset(tmp_path, "vqa/gqa", {"a_train.jsonl": [row], "b_train.jsonl": [row]})
    with pytest.raises(ValueError, match=r"a_train.jsonl, b_train.jsonl; keep one"):
        open_source("m3it", str(tmp_path)).files()


def test_files_are_all_that_records_depend_on(folder):
    files = open_source("m3it", folder, datasets=("imagenet",)).files()
    assert [file.rpartition("/")[2] for file in files] == [
        "train.jsonl",
        "instructions.json",
        "mapping.txt",
    ]


def one(tmp_path, row: dict | str, instructions=("Do.",)) -> Record | BadRecord:
    place = m3it_dataset(tmp_path, "vqa/gqa", {"train.jsonl": []}, list(instructions))
    if isinstance(row, str):
        (place / "train.jsonl").write_text(row + "\n")
    else:
        m3it_dataset(tmp_path, "vqa/gqa", {"train.jsonl": [row]})
    (item,) = read(tmp_path)
    return item


GOOD = {"inputs": "Which?", "image_base64_str": [JPEG], "outputs": "This."}


def test_empty_inputs(tmp_path):
    assert one(tmp_path, GOOD | {"inputs": ""}).turns[0].content == "<image>\nDo."


def test_no_instruction_but_inputs(tmp_path):
    assert one(tmp_path, GOOD, ()).turns[0].content == "<image>\nWhich?"


def test_base64_with_prefix_line_breaks_and_url_alphabet(tmp_path):
    text = "data:image/jpeg;base64," + "\n".join(JPEG[k : k + 76] for k in range(0, 900, 76))
    assert one(tmp_path, GOOD | {"image_base64_str": text}).images == (picture(12, 8),)


def test_slots_that_the_text_has_already(tmp_path):
    images = {"image_base64_str": [JPEG, JPEG]}
    record = one(tmp_path, GOOD | images | {"inputs": "Is <image> like <image>?"})
    assert record.turns[0].content == "Do.\nIs <image> like <image>?"
    record = one(tmp_path / "2", GOOD | images | {"inputs": "What does <image> say?"})
    assert record.turns[0].content == "<image>\n<image>\nDo.\nWhat does < image> say?"


def test_a_row_without_image_is_text(tmp_path):
    record = one(tmp_path, GOOD | {"image_base64_str": []})
    assert (record.images, record.turns[0].content) == ((), "Do.\nWhich?")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD | {"outputs": ""}, "the assistant's text is empty"),
        (GOOD | {"outputs": " \n"}, "the assistant's text is empty"),
        (GOOD | {"outputs": None}, "outputs: must be a text, not NoneType"),
        (GOOD | {"image_base64_str": [JPEG, "no-base64!"]}, "image 2: not base64"),
        (GOOD | {"image_base64_str": [JPEG[:-2]]}, "image 1: not base64"),
        (GOOD | {"image_base64_str": [b64(b"%PDF-1.4 and more")]}, "not of a JPEG, PNG"),
        (GOOD | {"image_base64_str": [""]}, "image 1: empty"),
        (GOOD | {"image_base64_str": [7]}, "image_base64_str: must be a text or a list"),
        (GOOD | {"inputs": ["a"]}, "inputs: must be a text, not list"),
        ({"picture": JPEG, "outputs": "x"}, "no image: the row has the keys picture, outputs"),
        ({"image_str": JPEG, "reply": "x"}, "no answer: the row has the keys image_str, reply"),
        ('"text"', "str instead of an object"),
        ('{"inputs": ', "not a JSON value"),
    ],
)
def test_a_bad_row_names_what_is_wrong(tmp_path, row, reason):
    item = one(tmp_path, row)
    assert isinstance(item, BadRecord)
    assert reason in item.reason
    assert item.file.endswith("data/vqa/gqa/train.jsonl")
    assert item.line == 1


def test_no_instruction_and_no_inputs(tmp_path):
    item = one(tmp_path, GOOD | {"inputs": ""}, ())
    assert isinstance(item, BadRecord)
    assert "fetch instructions.json" in item.reason


def test_too_large_an_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    from llava_mole.data.sources import embedded

    monkeypatch.setattr(embedded, "MAX_BYTES", 300)
    item = one(tmp_path, GOOD)
    assert "characters of base64" in item.reason
