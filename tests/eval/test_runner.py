import json

import pytest

from llava_mole.data.records import Record, Turn
from llava_mole.eval import runner


def record(index, question, answer, image=None, task="colour"):
    turns = (Turn("user", f"<image>\n{question}"), Turn("assistant", answer))
    return Record(
        id=str(index),
        source="toy",
        task=task,
        images=(image or f"{index}.png",),
        turns=turns,
        file="toy.jsonl",
        line=index + 1,
    )


RECORDS = [record(i, "which colour?", "red" if i % 3 else "blue") for i in range(7)]


def test_answers_are_scored_against_the_last_turn(tmp_path):
    seen = []

    def answer(prompts):
        seen.extend(prompts)
        return ["Red."] * len(prompts)

    answers = runner.ask(RECORDS, answer, lambda r: r.images[0], tmp_path / "a.jsonl", batch_size=3)
    assert runner.score(answers) == runner.Score(4, 7)
    assert [image for image, _ in seen] == [r.images[0] for r in RECORDS]
    assert seen[0][1] == [{"role": "user", "content": "<image>\nwhich colour?"}]


@pytest.mark.parametrize("cut", [0, 1, 40, 95, 200, 10_000])
def test_interrupted_run_ends_with_the_same_file(tmp_path, cut):
    def answer(prompts):
        return [f"answer to {image}" for image, _ in prompts]

    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    runner.ask(RECORDS, answer, lambda r: r.images[0], whole, batch_size=2)
    resumed.write_bytes(whole.read_bytes()[:cut])
    answers = runner.ask(RECORDS, answer, lambda r: r.images[0], resumed, batch_size=2)
    assert resumed.read_bytes() == whole.read_bytes()
    assert [a.id for a in answers] == [r.id for r in RECORDS]


def test_answers_to_other_questions_are_refused(tmp_path):
    file = tmp_path / "a.jsonl"
    runner.ask(RECORDS, lambda p: ["x"] * len(p), lambda r: None, file)
    with pytest.raises(ValueError, match=r"a\.jsonl.*other questions"):
        runner.ask([record(0, "what else?", "x")], lambda p: ["x"], lambda r: None, file)
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == len(RECORDS)


def test_majority_uses_question_then_task_then_all():
    training = [
        record(0, "q1", "yes"),
        record(1, "q1", "yes"),
        record(2, "q1", "no"),
        record(3, "q2", "no"),
        record(4, "q3", "no"),
        record(5, "q9", "9", task="count"),
    ]
    asked = [
        record(0, "q1", "yes"),
        record(1, "q1", "no"),
        record(2, "new", "yes"),  # its task says yes and no twice each: the first seen wins
        record(3, "new", "9", task="count"),
        record(4, "new", "no", task="other"),
    ]
    assert runner.majority(asked, training).hits == 3


def test_shuffled_images_always_differ_and_are_reproducible():
    records = [record(i, "q", "a", image=f"{i % 3}.png") for i in range(30)]
    shuffled = runner.with_shuffled_images(records, seed=1)
    assert all(a.images != b.images for a, b in zip(records, shuffled, strict=True))
    assert [r.turns for r in shuffled] == [r.turns for r in records]
    assert shuffled == runner.with_shuffled_images(records, seed=1)
    assert shuffled != runner.with_shuffled_images(records, seed=2)
    with pytest.raises(ValueError, match="at least two"):
        runner.with_shuffled_images(records[:1], seed=0)


def test_clearly_above_needs_separate_intervals():
    assert runner.Score(80, 100).clearly_above(runner.Score(60, 100))
    assert not runner.Score(66, 100).clearly_above(runner.Score(60, 100))
