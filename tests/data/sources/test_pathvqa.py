import pickle

import pytest

from llava_mole.data.records import BadRecord
from llava_mole.data.sources import open_source, pathvqa
from tests.data.sources import published

TASKS = ["open", "yes/no", "yes/no", "open", "open", "number"]


def read(folder, split="train") -> list:
    source = open_source("pathvqa", str(folder), split=split)
    return [item for piece in source.pieces() for item in source.read(piece)]


@pytest.mark.parametrize("listed", ["qa", "vqa"])
def test_either_of_the_authors_lists(tmp_path, listed):
    root = published.pathvqa_raw(tmp_path, listed)
    records = read(root)
    assert [record.task for record in records] == TASKS
    assert [record.turns[1].content for record in records] == [
        answer for _, _, answer in published.PATHVQA_QUESTIONS
    ]
    assert records[0].images == ("images/train/train_0422.jpg",)
    image_root = open_source("pathvqa", str(root)).image_root()
    assert all((tmp_path / "pvqa" / record.images[0]).is_file() for record in records)
    assert image_root == str(tmp_path / "pvqa")
    # The folder itself will do.
    assert [record.turns for record in read(root / "pvqa")] == [r.turns for r in records]


def test_spaces_become_single_ones_and_case_is_kept(tmp_path):
    second = read(published.pathvqa_raw(tmp_path))[1]
    assert [turn.content for turn in second.turns] == ["<image>\nIs this normal?", "No"]


def test_several_answers_for_one_question_stay_apart(tmp_path):
    records = read(published.pathvqa_raw(tmp_path))
    same = [record for record in records if record.turns[0].content == "<image>\nWhat is seen?"]
    assert [record.turns[1].content for record in same] == ["no necrosis", "Endocrine"]
    assert [record.task for record in same] == ["open", "open"], "no necrosis is no yes/no"
    assert len({record.id for record in records}) == len(records)


def test_a_label_of_several_answers_is_several_records(tmp_path):
    file = tmp_path / "qas/val_vqa.pkl"
    file.parent.mkdir()
    row = {"img_id": "val_1", "sent": "What?", "answer_type": "other", "label": {"a": 1, "b": 0.3}}
    file.write_bytes(pickle.dumps([row]))
    assert [(r.id, r.turns[1].content) for r in read(tmp_path, "val")] == [
        ("val-1-1", "a"),
        ("val-1-2", "b"),
    ]


@pytest.mark.parametrize("piece_bytes", [1, 10**9])
def test_the_hubs_parquet(tmp_path, monkeypatch, piece_bytes):
    monkeypatch.setattr(pathvqa, "PIECE_BYTES", piece_bytes)
    root = published.pathvqa_hub(tmp_path)
    records = read(root)
    assert [record.task for record in records] == TASKS
    assert [record.images[0] for record in records] == [
        published.picture(30, 20, (index * 20, 0, 0)) for index in range(6)
    ]
    assert records[4].turns[1].content == "endocrine"
    assert [record.line for record in records] == [1, 2, 3, 4, 1, 2]
    assert len({record.id for record in records}) == 6
    pieces = list(open_source("pathvqa", str(root)).pieces())
    assert len(pieces) == (3 if piece_bytes == 1 else 2)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "train_1", "question": "Q"}, "answer: must be a text"),
        ({"image": "train_1", "answer": "A"}, "question: must be a text"),
        ({"image": None, "question": "Q", "answer": "A"}, "image: must be the name"),
        ({"image": "train_1", "question": "Q", "answer": " "}, "the assistant's text is empty"),
        ({"image": "train_1", "sent": "Q", "label": {1: 1}}, "label: must have answers"),
        ("Q", "str instead of a question"),
    ],
)
def test_a_bad_question_names_what_is_wrong(tmp_path, row, reason):
    file = tmp_path / "qas/train/train_qa.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps([row]))
    (item,) = read(tmp_path)
    assert isinstance(item, BadRecord)
    assert reason in item.reason
    assert (item.file, item.line) == (str(file), 1)


def test_an_image_that_the_parquet_lacks(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    tmp_path.joinpath("data").mkdir()
    row = {"image": {"bytes": None, "path": "x.jpg"}, "question": "Q", "answer": "A"}
    pyarrow.parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "data/validation-0.parquet")
    (item,) = read(tmp_path, "val")
    assert "carries no image" in item.reason


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"neither pvqa/qas .* nor data/train-"):
        open_source("pathvqa", str(tmp_path)).files()
    with pytest.raises(ValueError, match="choose one of train, val, test"):
        open_source("pathvqa", str(tmp_path), split="dev").files()
    published.pathvqa_raw(tmp_path)
    with pytest.raises(ValueError, match=r"neither of .*val_qa.pkl and .*val_vqa.pkl"):
        open_source("pathvqa", str(tmp_path), split="val").files()


def test_broken_files_are_named(tmp_path):
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match=r"train-0.parquet: .*fetch the file again"):
        read(tmp_path)
    file = tmp_path / "qas/train_vqa.pkl"
    file.parent.mkdir()
    file.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"train_vqa.pkl: holds a dict, not a list"):
        read(tmp_path)
