import json

import pytest

from llava_mole.data.records import BadRecord
from llava_mole.data.sources import open_source
from tests.data.sources import published
from tests.data.sources.published import b64, picture, write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return published.ureader(tmp_path_factory.mktemp("ureader"))


def read(folder, **options) -> list:
    source = open_source("ureader", str(folder), **options)
    return [item for piece in source.pieces() for item in source.read(piece)]


def test_consecutive_user_turns_are_joined_by_a_line_break(folder):
    first = read(folder)[0]
    assert [(turn.role, turn.content) for turn in first.turns] == [
        ("user", "<image>\nWhich country has the most?"),
        ("assistant", "Nigeria"),
    ]
    assert first.images == ("DUE_Benchmark/DocVQA/pngs/rnbx0223_193.png",)
    assert (first.source, first.task, first.line) == ("ureader/DocVQA", "qa_sft", 1)


def test_the_path_names_the_data_set(folder):
    sources = [getattr(item, "source", None) for item in read(folder)]
    assert sources == [
        "ureader/DocVQA",
        "ureader/ChartQA",
        "ureader/DeepForm",
        "ureader/InfographicsVQA",
        "ureader/unknown",
        "ureader/VisualMRC",
        None,
    ]


def test_images_as_text_list_page_and_base64(folder):
    images = [item.images for item in read(folder)[:5]]
    assert images[1] == ("ChartQA/train/png/41699051005347.png",)
    assert images[2] == ("DUE_Benchmark/DeepForm/tiffs/form.tiff.2",), "the page stays"
    assert images[4] == (picture(16, 16, format="PNG"),)


def test_paths_start_from_the_image_folder(folder):
    source = open_source("ureader", str(folder))
    assert source.image_root() == str(folder / "ureader_images")
    for item in read(folder)[:2]:
        assert (folder / "ureader_images" / item.images[0]).is_file()


def test_none_is_an_answer_and_nothing_is_not(folder):
    items = read(folder)
    assert items[2].turns[1].content == "None"
    assert isinstance(items[6], BadRecord)
    assert "the assistant's text is empty" in items[6].reason
    assert items[6].line == 7


def test_the_system_instruction_comes_first(folder):
    assert read(folder)[5].turns[0].content == "Be brief.\n<image>\nSum up."


def test_one_of_several_system_instructions_always_the_same(tmp_path):
    rows = [
        {
            "image": ["ChartQA/a.png"],
            "system_instruction": ["One <image>.", "Two <image>."],
            "conversations": [
                {"from": "user", "value": "<image>"},
                {"from": "user", "value": f"{k}?"},
                {"from": "assistant", "value": "yes"},
            ],
        }
        for k in range(20)
    ]
    write_rows(tmp_path / "ureader_json/train.jsonl", rows)
    firsts = [record.turns[0].content.split("\n")[0] for record in read(tmp_path)]
    assert set(firsts) == {"One < image>.", "Two < image>."}
    assert firsts == [record.turns[0].content.split("\n")[0] for record in read(tmp_path)]


def test_choices(folder):
    def sources(**options):
        return [
            item.source.removeprefix("ureader/")
            for item in read(folder, **options)
            if not isinstance(item, BadRecord)
        ]

    assert sources(datasets=("DocVQA", "ChartQA")) == ["DocVQA", "ChartQA"]
    assert "ChartQA" not in sources(exclude=("ChartQA",))
    assert len(sources(exclude=("ChartQA",))) == 5
    assert sources(split="val") == ["DocVQA"]
    assert len(sources(split="train+val")) == 7
    assert sources(split="test", datasets=("DocVQA",)) == ["DocVQA"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "trian"}, "choose one of train, val"),
        ({"datasets": ("docvqa",)}, "'docvqa'; there are ChartQA, DeepForm, DocVQA"),
        ({"split": "test"}, r"test_ChartQA.jsonl is missing; unpack ureader_json.zip"),
    ],
)
def test_wrong_choices(folder, options, message):
    with pytest.raises(ValueError, match=message):
        open_source("ureader", str(folder), **options).files()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": 7}, "image: must be a path"),
        ({"image": ["a.png", 7]}, "image: must be a path"),
        ({"image": ["data:image/png;base64,AAAA"]}, "not of a JPEG, PNG"),
        ({"image": [b64(picture(4, 4))[:-3]]}, "image: not base64"),
        ({"image": []}, "0 image(s) but 1 <image>"),
        ({"conversations": None}, "conversations: must be a list"),
        ({"conversations": [{"from": "system", "value": "x"}]}, "'system'"),
        ({"conversations": [{"from": "user", "value": "<image>"}]}, "the last turn is the user's"),
        ({"system_instruction": 3}, "system_instruction: must be a text"),
        ({"task_type": ["qa"]}, "task: must be a text"),
    ],
)
def test_a_bad_row_names_what_is_wrong(folder, tmp_path, change, reason):
    row = json.loads((folder / "ureader_json/val.jsonl").read_text())
    write_rows(tmp_path / "ureader_json/train.jsonl", [row | change])
    (item,) = read(tmp_path)
    assert isinstance(item, BadRecord)
    assert reason in item.reason


def test_a_path_may_begin_in_the_same_folder(tmp_path):
    turns = [{"from": "user", "value": "<image>?"}, {"from": "assistant", "value": "A"}]
    rows = [
        {"image": [image], "conversations": turns}
        for image in ("./TextCaps/a.png", ".//DUE_Benchmark/./DocVQA/b.png")
    ]
    write_rows(tmp_path / "ureader_json/train.jsonl", rows)
    assert [item.source for item in read(tmp_path)] == ["ureader/TextCaps", "ureader/DocVQA"]
    assert [item.source for item in read(tmp_path, exclude=("TextCaps",))] == ["ureader/DocVQA"]


def test_no_such_folder(tmp_path):
    with pytest.raises(ValueError, match=r"ureader: --source .*nowhere: no such file or folder"):
        open_source("ureader", str(tmp_path / "nowhere"))
