"""ShareGPT4V in a faithful small copy of its published layout."""

import json

import pytest

from llava_mole.data.records import BadRecord
from llava_mole.data.sources import open_source
from llava_mole.data.sources.sharegpt4v import FILES, ShareGPT4VSource


def _row(id, image, *values, **more):
    turns = [
        {"from": "human" if i % 2 == 0 else "gpt", "value": value} for i, value in enumerate(values)
    ]
    return {"id": id, **({"image": image} if image else {}), "conversations": turns, **more}


CAPTIONS = [
    _row("sa_545504", "sam/images/sa_545504.jpg", "<image>\nWhat is this about?", "The image."),
    _row("000000125860", "coco/train2017/000000125860.jpg", "Describe.\n<image>", "A dog."),
    _row("001200924", "llava/llava_pretrain/images/00120/001200924.jpg", "<image>\nQ", "A."),
]
BAD_CAPTIONS = {
    "4 turns where a caption": _row("a", "sam/a.jpg", "<image>\nQ", "A", "Q", "A"),
    "0 image\\(s\\) where a caption": _row("b", None, "Q", "A"),
    "2 image\\(s\\) where a caption": _row("c", ["sam/a.jpg", "sam/b.jpg"], "<image><image>", "A"),
    "1 image\\(s\\) but 0 <image>": _row("d", "sam/a.jpg", "Q", "A"),
    "instead of an object": 5,
}
INSTRUCTIONS = [
    _row("000000033471", "coco/train2017/000000033471.jpg", "<image>\nQ1", "A1", "Q2", "A2"),
    _row("2", "ocr_vqa/images/0.jpg", "Who wrote it?\n<image>", "X"),
    _row("wgByO4Y_0", None, "Write a poem.", "None", model=""),
    _row("4", "web-celebrity/images/x.jpg", "<image>", "A"),
]


def _write(folder, stage, rows):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILES[stage]
    path.write_text(json.dumps(rows))
    return path


def _read(source):
    return [item for piece in source.pieces() for item in source.read(piece)]


def test_captions(tmp_path):
    path = _write(tmp_path, "pretrain", CAPTIONS + list(BAD_CAPTIONS.values()))
    source = open_source("sharegpt4v-pretrain", str(tmp_path))
    assert source.name == "sharegpt4v-pretrain"
    assert source.files() == [str(path)]
    found = _read(source)
    assert [item.id for item in found[:3]] == ["sa_545504", "000000125860", "001200924"]
    assert [record.source for record in found[:3]] == ["sam", "coco", "llava"]
    assert {record.task for record in found[:3]} == {"caption"}
    assert found[1].turns[0].content == "Describe.\n<image>"
    for error, reason in zip(found[3:], BAD_CAPTIONS, strict=True):
        with pytest.raises(BadRecord, match=reason):
            raise error
        assert error.line == 1


def test_instructions(tmp_path):
    _write(tmp_path / "sharegpt4v", "instruct", INSTRUCTIONS)
    found = _read(open_source("sharegpt4v-instruct", str(tmp_path)))
    assert [record.source for record in found] == ["coco", "ocr_vqa", "text", "web-celebrity"]
    assert [len(record.images) for record in found] == [1, 1, 0, 1]
    assert [len(record.turns) for record in found] == [4, 2, 2, 2]
    assert found[1].turns[0].content == "Who wrote it?\n<image>"
    assert found[2].turns[1].content == "None"
    assert {record.task for record in found} == {"conversation"}


@pytest.mark.parametrize("folder", [".", "sharegpt4v", "share4v"])
def test_the_file_is_found_and_the_images_beside_it(tmp_path, folder):
    path = _write(tmp_path / folder, "pretrain", CAPTIONS)
    (tmp_path / "coco").mkdir()
    for given in (tmp_path, path, path.parent):
        source = ShareGPT4VSource(str(given), "pretrain")
        assert len(_read(source)) == 3
        assert source.image_root() == str(tmp_path)


def test_the_image_root_is_where_most_folders_are(tmp_path):
    path = _write(tmp_path / "sharegpt4v", "pretrain", CAPTIONS)
    source = ShareGPT4VSource(str(path), "pretrain")
    # Nothing fetched yet: the published layout has them beside the JSON's folder.
    assert source.image_root() == str(tmp_path)
    (tmp_path / "sharegpt4v/sam").mkdir()
    assert source.image_root() == str(tmp_path / "sharegpt4v")
    (tmp_path / "sam").mkdir()
    (tmp_path / "coco").mkdir()
    assert source.image_root() == str(tmp_path)
    other = _write(tmp_path / "elsewhere", "pretrain", CAPTIONS)
    (tmp_path / "elsewhere/sam").mkdir()
    (tmp_path / "elsewhere/coco").mkdir()
    assert ShareGPT4VSource(str(other), "pretrain").image_root() == str(tmp_path / "elsewhere")


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"no share-captioner_coco.*Lin-Chen/ShareGPT4V"):
        ShareGPT4VSource(str(tmp_path), "pretrain").files()
    with pytest.raises(ValueError, match="stage is 'sft'; choose one of pretrain, instruct"):
        ShareGPT4VSource(str(tmp_path), "sft")


def test_settings_tell_the_stages_apart():
    stages = [ShareGPT4VSource("x", stage).settings() for stage in FILES]
    assert stages[0] != stages[1]
    assert all(json.loads(json.dumps(settings)) == settings for settings in stages)
