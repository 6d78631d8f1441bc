import collections
import json

import numpy as np
import pytest
from PIL import Image

from llava_mole.data.builders import document, drawing, general, histology, quickstart, store
from llava_mole.data.builders.store import Question, Sizes

SIZES = Sizes(pretrain=12, train=40, test=90)
BUILDERS = {"general": general, "document": document, "biomedicine": histology}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("quickstart")
    for name, builder in BUILDERS.items():
        builder.build(root / name, 0, SIZES)
    return root


def records(folder, split):
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def questions(folder, split):
    for record in records(folder, split):
        turns = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
        yield from zip(turns[::2], turns[1::2], strict=True)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_record_is_llavas_and_has_its_image(built, name):
    for split in store.SPLITS:
        found = records(built / name, split)
        assert len(found) == getattr(SIZES, split)
        assert len({record["id"] for record in found}) == len(found)
        for record in found:
            assert Image.open(built / name / record["image"]).mode == "RGB"
            turns = record["conversations"]
            assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
            assert "".join(turn["value"] for turn in turns).count("<image>") == 1
            assert all(turn["value"].strip() for turn in turns)
            assert record["source"]
            assert record["task"]
    assert all(len(record["conversations"]) == 2 for record in records(built / name, "test"))


@pytest.mark.parametrize("name", BUILDERS)
def test_training_and_test_share_no_picture(built, name):
    def pictures(split):
        return {
            np.asarray(Image.open(built / name / record["image"])).tobytes()
            for record in records(built / name, split)
        }

    assert not pictures("test") & (pictures("train") | pictures("pretrain"))


@pytest.mark.parametrize("name", ["document", "biomedicine"])
def test_no_answer_to_a_test_question_is_common(built, name):
    answers = collections.defaultdict(collections.Counter)
    for text, answer in questions(built / name, "test"):
        answers[text][answer] += 1
    for text, counts in answers.items():
        if text != document.KIND:
            assert max(counts.values()) - min(counts.values()) <= 1, (text, counts)


def test_general_asks_yes_and_no_equally_often(built):
    counts = collections.Counter(
        answer
        for split in ("train", "test")
        for _, answer in questions(built / "general", split)
        if answer in ("yes", "no")
    )
    assert abs(counts["yes"] - counts["no"]) <= 0.25 * counts.total()


def test_no_turn_of_a_general_conversation_gives_the_next_ones_answer():
    asked = [
        Question("shape", "what is the blue shape?", "circle"),
        Question("color", "what color is the circle?", "blue"),
        Question("yes/no", "is there a triangle?", "no"),
    ]
    kept = general._without_hints(asked)
    assert len(kept) == 2
    assert asked[2] in kept


@pytest.mark.parametrize("name", BUILDERS)
def test_same_seed_same_set_other_seed_another(built, tmp_path, name):
    BUILDERS[name].build(tmp_path / "again", 0, SIZES)
    BUILDERS[name].build(tmp_path / "other", 1, SIZES)
    for split in store.SPLITS:
        assert records(tmp_path / "again", split) == records(built / name, split)
    one, two, other = (
        {file.name: file.read_bytes() for file in (folder / "images").iterdir()}
        for folder in (built / name, tmp_path / "again", tmp_path / "other")
    )
    assert one == two
    assert one != other


def test_a_complete_set_is_kept_another_replaced_a_strangers_folder_refused(tmp_path):
    calls = []

    def produce(at):
        calls.append(at)
        (at / "images" / "x").write_text("x")
        return {split: [{"id": str(len(calls))}] for split in store.SPLITS}

    folder = tmp_path / "set"
    store.build_once(folder, {"seed": 0}, produce)
    store.build_once(folder, {"seed": 0}, produce)
    assert len(calls) == 1
    store.build_once(folder, {"seed": 1}, produce)
    assert records(folder, "train") == [{"id": "2"}]

    def interrupted(at):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build_once(folder, {"seed": 2}, interrupted)
    assert records(folder, "train") == [{"id": "2"}]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="no builder wrote it"):
        store.build_once(tmp_path / "mine", {"seed": 0}, produce)


def test_general_names_what_it_has_when_asked_for_more(tmp_path):
    with pytest.raises(ValueError, match="train asks for 50000"):
        general.build(tmp_path / "general", 0, Sizes(50_000, 50_000, 1))


def slow_nuclei(labels, smallest=30):
    """Areas and centres by one loop over the pixels of every nucleus."""
    found = []
    for number in sorted(set(labels.reshape(-1).tolist()) - {0}):
        pixels = [tuple(at) for at in np.argwhere(labels == number)]
        if len(pixels) >= smallest:
            y, x = (sum(axis) / len(pixels) for axis in zip(*pixels, strict=True))
            found.append((len(pixels), y, x))
    return found


def test_nuclei_of_a_tile_against_a_loop_over_pixels():
    slide = histology.slides()[0]
    tile = slide.nuclei[100:180, 200:280]
    areas, centers = histology._nuclei(tile)
    expected = slow_nuclei(tile)
    assert len(expected) > 3
    np.testing.assert_allclose(
        np.column_stack([areas, centers]), np.array(expected, dtype=float), rtol=1e-12
    )


def test_histology_answers_of_a_drawn_tile():
    nuclei = np.zeros((80, 80), dtype=int)
    nuclei[5:25, 50:70] = 3  # the largest, top right
    for number in range(4):
        nuclei[40:48, 5 + 9 * number : 13 + 9 * number] = 5 + number
    brown = np.zeros((80, 80), dtype=bool)
    brown[:, :20] = True
    assert histology.measure(nuclei, brown) == {
        histology.STAIN: "DAB",
        histology.BROWN_HALF: "no",
        histology.BROWN_SHARE: "a quarter",
        histology.BROWN_SIDE: "left",
        histology.NUCLEI_MANY: "no",
        histology.NUCLEI_COUNT: "fewer than 6",
        histology.NUCLEI_SIDE: "left",
    }
    assert histology.measure(nuclei[:, ::-1], brown[:, ::-1])[histology.BROWN_SIDE] == "right"
    eosin = histology.measure(nuclei, None)
    assert (eosin[histology.STAIN], eosin[histology.LARGEST]) == ("eosin", "top right")
    assert histology.measure(nuclei[:, ::-1], None)[histology.LARGEST] == "top left"


def test_histology_areas_of_training_and_test_do_not_touch():
    for slide in histology.slides():
        owners = np.zeros(slide.nuclei.shape, dtype=int)
        for top, bottom, left, right in slide.areas.values():
            assert min(bottom - top, right - left) > histology.TILE
            owners[top:bottom, left:right] += 1
        assert owners.max() == 1


def test_bars_have_the_heights_they_were_given():
    style = drawing.Style(grid=False)
    image = np.asarray(drawing.bars(style, "", ["a", "b", "c"], [0.25, 1.0, 0.5], "red")).astype(
        int
    )
    red = (image == np.array(drawing.COLORS["red"])).all(axis=-1)
    starts = np.flatnonzero(np.diff(red.any(axis=0).astype(int)) == 1)
    heights = [red[:, start + 3].sum() for start in starts]
    assert len(heights) == 3
    np.testing.assert_allclose(np.array(heights) / heights[1], [0.25, 1.0, 0.5], atol=0.02)


def test_document_pictures_show_their_answers(built):
    seen = 0
    for record in records(built / "document", "test"):
        text = record["conversations"][0]["value"].removeprefix("<image>\n")
        answer = record["conversations"][1]["value"]
        picture = np.asarray(Image.open(built / "document" / record["image"])).astype(int)
        if "color" in text:
            shares = {
                name: (picture == np.array(rgb)).all(axis=-1).sum()
                for name, rgb in drawing.COLORS.items()
            }
            assert max(shares, key=shares.get) == answer
            seen += 1
        if text == "How many bars are there?":
            rows = [(picture == np.array(rgb)).all(axis=-1) for rgb in drawing.COLORS.values()]
            bars = max(rows, key=np.sum).any(axis=0).astype(int)
            assert (np.diff(bars) == 1).sum() == int(answer)
            seen += 1
    assert seen >= 10


def test_the_command_builds_all_sets_side_by_side(tmp_path):
    sizes = ["--pretrain", "2", "--train", "2", "--test", "3"]
    for _ in range(2):
        quickstart.main(["--output-dir", str(tmp_path), *sizes])
    for name in BUILDERS:
        assert len(records(tmp_path / name, "test")) == 3
