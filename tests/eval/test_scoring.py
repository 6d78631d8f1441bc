"""From answers to result tables: totals, parts, data sets, failed images, intervals."""

import numpy as np
import pytest

from llava_mole.data.records import Record, Turn
from llava_mole.eval import results, scoring
from llava_mole.eval.baselines import majority_answers, with_shuffled_images
from llava_mole.eval.benchmarks import Benchmark, Rule
from llava_mole.eval.metrics import bootstrap_interval
from llava_mole.eval.prompts import Prompting
from llava_mole.eval.questions import Question, asked, from_record
from llava_mole.eval.report.markdown import clearly_above, markdown
from llava_mole.eval.scores import Answer, Estimate
from llava_mole.eval.task import Task

RULE = Rule("exact", lambda p, r: float(p in r), lambda p, r: float(p == r[0]))


def question(n, part="a", dataset="", image=None, text="Which?", reference="yes"):
    return Question(
        f"{part}{n}", part, dataset, asked(text), (reference, "ja"), image, "r", f"f:{n}"
    )


def benchmark(**options):
    return Benchmark("b", "B", lambda folder: [], {"a": RULE, "b": RULE}, **options)


QUESTIONS = [question(n, "a", dataset="xy"[n % 2], image=f"{n // 2}") for n in range(8)] + [
    question(n, "b", image=f"b{n}") for n in range(4)
]
SAID = ["yes", "ja", None, "no", "yes", "yes", "no", "ja", "yes", "no", "no", "no"]
ANSWERS = [
    Answer(q.id, said, "gone" if said is None else "")
    for q, said in zip(QUESTIONS, SAID, strict=True)
]


def lines(**options):
    b = benchmark(**options)
    return scoring.lines(b, scoring.score(b, QUESTIONS, ANSWERS))


def test_every_question_counts_and_failed_ones_are_shown():
    total, part_a, x, y, part_b = lines(total="All", total_is="sum")
    assert [line.kind for line in (total, part_a, x, y, part_b)] == [
        "total", "part", "dataset", "dataset", "part",
    ]  # fmt: skip
    assert (part_a.questions, part_a.failed) == (8, 1)
    assert part_a.score.value == pytest.approx(100 * 5 / 8)
    assert part_a.strict.value == pytest.approx(100 * 3 / 8)
    assert (x.name, x.part, x.score.value) == ("x", "a", pytest.approx(50))
    assert part_b.score.value == pytest.approx(25)
    assert total.score.value == pytest.approx(62.5 + 25)
    assert (total.questions, total.failed) == (12, 1)


def test_a_mean_pools_questions_and_no_total_has_no_line():
    assert lines(total="All")[0].score.value == pytest.approx(100 * 6 / 12)
    assert [line.name for line in lines()] == ["a", "x", "y", "b"]


def test_intervals_resample_images():
    scores = np.array([1, 1, 0, 0, 1, 1, 0, 1.0])
    part = lines()[0].score
    expected = bootstrap_interval(scores, np.arange(8) // 2)
    assert (part.low, part.high) == pytest.approx([100 * end for end in expected])


def test_a_sum_of_parts_without_a_single_hit_is_not_certain():
    b = benchmark(total="All", total_is="sum")
    wrong = [Answer(q.id, "no") for q in QUESTIONS]
    total = scoring.lines(b, scoring.score(b, QUESTIONS, wrong))[0].score
    assert (total.value, total.low) == (0, 0)
    assert 20 < total.high < 110


def record(n, text, answer, task="kind"):
    turns = (Turn("user", f"<image>\n{text}"), Turn("assistant", answer))
    return Record(str(n), "s", task, (f"{n}.png",), turns, "f.json", n)


def test_majority_takes_question_then_kind_then_all():
    pairs = [("q1", "no"), ("q1", "yes"), ("q1", "yes"), ("q2", "no"), ("q3", "no")]
    training = [record(n, text, answer) for n, (text, answer) in enumerate(pairs)]
    training.append(record(5, "q9", "9", "count"))
    asked_for = [("q1", "kind"), ("new", "count"), ("new", "other")]
    questions = [question(i, text=text, dataset=kind) for i, (text, kind) in enumerate(asked_for)]
    assert [a.prediction for a in majority_answers(questions, training)] == ["yes", "9", "no"]
    with pytest.raises(ValueError, match="at least one record"):
        majority_answers(questions, [])


def test_shuffled_images_always_differ_and_come_again():
    shuffled = with_shuffled_images(QUESTIONS, 1)
    assert all(a.image != b.image for a, b in zip(shuffled, QUESTIONS, strict=True))
    assert [q.turns for q in shuffled] == [q.turns for q in QUESTIONS]
    assert with_shuffled_images(QUESTIONS, 1) == shuffled != with_shuffled_images(QUESTIONS, 2)
    with pytest.raises(ValueError, match="one image; shuffling"):
        with_shuffled_images(QUESTIONS[:2], 1)
    text = [question(0), question(1)]
    assert with_shuffled_images(text, 0) == text


def test_questions_of_records_take_the_last_turn_and_refuse_two_images():
    turns = (Turn("user", "<image>\nA?"), Turn("assistant", "a"), Turn("user", "B?"),
             Turn("assistant", "b"))  # fmt: skip
    made = from_record(Record("1", "s", "t", ("i.png",), turns), "root", "part")
    assert (made.text, made.references, len(made.turns)) == ("B?", ("b",), 3)
    two = (Turn("user", "<image><image>A?"), Turn("assistant", "a"))
    with pytest.raises(ValueError, match="has 2 images; one at most"):
        from_record(Record("1", "s", "t", ("i.png", "j.png"), two), "root", "part")


def test_results_say_what_they_rest_on_and_keep_other_benchmarks(tmp_path):
    b = benchmark(total="All", published={"a": 10, "b": 4})
    task = Task("b", b, QUESTIONS, Prompting())
    scored = scoring.score(b, QUESTIONS, ANSWERS)
    made = results.entry(task, scored, scoring.lines(b, scored), {"batch_size": 4}, {
        "majority_answer": Estimate(10.0, 5.0, 15.0), "shuffled_images": Estimate(40.0, 5.0, 99.0),
    })  # fmt: skip
    assert made["failed"] == [{"id": "a2", "error": "gone"}]
    assert any("12 questions where the benchmark has 14" in note for note in made["notes"])
    results.update(tmp_path, {"w": 1}, {"b": made}, None)
    both = results.update(tmp_path, {"w": 1}, {"c": made}, None)
    assert list(both["benchmarks"]) == ["b", "c"]
    assert results.lines_of(both["benchmarks"]["b"]) == scoring.lines(b, scored)
    text = markdown(both)
    assert "`a2`: gone" in text
    assert "| majority answer" in text
    assert "NOT SHOWN" in text
    # Another model's figures never stand beside these.
    assert list(results.update(tmp_path, {"w": 2}, {"d": made}, None)["benchmarks"]) == ["d"]


def test_clearly_above_needs_separate_intervals():
    score = Estimate(80.0, 71.0, 87.0)
    assert clearly_above(score, {"low": 50.0, "high": 69.0})
    assert not clearly_above(score, {"low": 50.0, "high": 72.0})
