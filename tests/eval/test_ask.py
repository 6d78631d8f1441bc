"""Answers: none lost or doubled whatever stops the run, on any number of ranks."""

import dataclasses
import errno
import json
import multiprocessing
import os
import random
import signal
import threading
import time

import pytest

from llava_mole.eval.answers import AnswerFolder, Journal
from llava_mole.eval.ask import Ranks, ask, batches, image_key
from llava_mole.eval.questions import Question, asked
from tests.eval import published


def questions_about(root, images=4, each=5):
    """``each`` questions about each of ``images`` images, by turns, of different lengths."""
    for index in range(images):
        published.image(root / f"{index}.png", index)
    return [
        Question(
            f"q{n}", "p", "", asked("word " * (1 + n * 7 % 5) + str(n)), ("x",),
            f"{n % images}.png", str(root), f"file:{n}",
        )
        for n in range(images * each)
    ]  # fmt: skip


def says(prompts):
    """An answer that depends on the whole batch, as bfloat16 ones may in their last bits."""
    together = sum(len(turns[0]["content"]) for _, turns in prompts)
    return [
        f"{turns[0]['content'][8:]} {image.getpixel((0, 0))} {together}" for image, turns in prompts
    ]


@pytest.fixture
def questions(tmp_path):
    return questions_about(tmp_path / "images")


@pytest.fixture
def whole(questions, tmp_path):
    ask(questions, says, tmp_path / "whole", {}, batch_size=3)
    return (tmp_path / "whole" / "answers.jsonl").read_bytes()


def final(folder):
    return (folder / "answers.jsonl").read_bytes()


def test_answers_are_in_the_questions_order_and_journals_are_gone(questions, whole, tmp_path):
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [row["id"] for row in rows] == [question.id for question in questions]
    assert [row["question"] for row in rows] == [question.text for question in questions]
    assert all(row["prediction"].startswith(row["question"]) for row in rows)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == [".lock", "answers.jsonl", "settings.json"]


def test_batches_hold_every_question_once_with_images_together(questions):
    # One image has the longest question, the last of them.
    long = dataclasses.replace(questions[-1], turns=asked("word " * 20))
    plan = batches([*questions[:-1], long], 5)
    assert questions[plan[0][0]].id == long.id
    assert sorted(i for batch in plan for i in batch) == list(range(len(questions)))
    assert all(len({image_key(questions[i]) for i in batch}) == 1 for batch in plan)


def test_each_image_is_read_once_a_batch(questions, tmp_path, monkeypatch):
    read = []
    original = Question.load_image
    monkeypatch.setattr(
        Question, "load_image", lambda self: read.append(self.image) or original(self)
    )

    def same(prompts):
        assert len({id(image) for image, _ in prompts}) == 1
        return says(prompts)

    ask(questions, same, tmp_path / "a", {}, batch_size=5)
    assert sorted(read) == [f"{i}.png" for i in range(4)]


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 6])
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_stopped_run_ends_with_the_same_file(
    questions, whole, tmp_path, stop_after, cut, monkeypatch
):
    calls = []

    def stopping(prompts):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(prompts)
        return says(prompts)

    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        ask(questions, stopping, folder, {}, batch_size=3)
    journal = folder / "answers.rank0.partial.jsonl"
    if journal.stat().st_size > cut:
        os.truncate(journal, journal.stat().st_size - cut)
    kept = journal.read_bytes().count(b"\n")
    asked_again, written = [], []
    append = Journal.append
    monkeypatch.setattr(
        Journal, "append", lambda self, pairs: written.extend(pairs) or append(self, pairs)
    )

    def counting(prompts):
        asked_again.extend(prompts)
        return says(prompts)

    ask(questions, counting, folder, {}, batch_size=3)
    assert final(folder) == whole
    # At most the rest of one batch is asked a second time, and nothing is written twice.
    assert len(written) == len(questions) - kept
    assert len(questions) - kept <= len(asked_again) <= len(questions) - kept + 2
    again = len(asked_again)
    ask(questions, counting, folder, {}, batch_size=3)
    assert len(asked_again) == again
    assert final(folder) == whole


def _child(root, folder, batch_size):
    def slowly(prompts):
        time.sleep(0.01)
        return says(prompts)

    ask(questions_about(root), slowly, folder, {}, batch_size=batch_size)


def test_killed_at_any_time_the_final_file_is_the_same(questions, whole, tmp_path):
    chooser = random.Random(0)
    folder = tmp_path / "killed"
    context = multiprocessing.get_context("fork")
    kills = 0
    for _ in range(60):
        child = context.Process(target=_child, args=(tmp_path / "images", folder, 3))
        child.start()
        child.join(chooser.uniform(0.01, 0.08))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join()
        if child.exitcode == 0:
            break
    ask(questions, says, folder, {}, batch_size=3)
    assert kills
    assert final(folder) == whole


def test_a_crash_between_the_final_file_and_its_journals_is_no_matter(questions, whole, tmp_path):
    folder = tmp_path / "whole"
    (folder / "answers.rank0.partial.jsonl").write_bytes(whole[: len(whole) // 2])
    ask(questions, lambda prompts: pytest.fail("asked again"), folder, {}, batch_size=3)
    assert final(folder) == whole
    assert not list(folder.glob("*.partial.jsonl"))


@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_ranks_gives_the_same_file(questions, whole, tmp_path, count):
    """Also where a run of three ranks was stopped and goes on with ``count``."""
    folder = tmp_path / "ranks"
    folder.mkdir()
    rows = whole.splitlines(keepends=True)
    for rank, picked in enumerate((rows[3:5], rows[9:10], rows[17:19])):
        (folder / f"answers.rank{rank}.partial.jsonl").write_bytes(b"".join(picked))
    barrier = threading.Barrier(count)
    asked_for = [[] for _ in range(count)]

    def run(rank):
        def answering(prompts):
            asked_for[rank].extend(turns[0]["content"] for _, turns in prompts)
            return says(prompts)

        ask(questions, answering, folder, {}, 3, Ranks(rank, count, barrier.wait))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert final(folder) == whole
    everything = [text for texts in asked_for for text in texts]
    assert len(everything) == len(set(everything))
    assert all(asked_for)


def test_an_image_that_fails_is_counted_and_named(questions, tmp_path):
    (tmp_path / "images" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    answers = ask(questions, says, tmp_path / "a", {}, batch_size=4)
    failed = [answer for answer in answers if answer.prediction is None]
    assert [answer.id for answer in failed] == [q.id for q in questions if q.image == "1.png"]
    assert all("1.png" in answer.error for answer in failed)
    rows = [json.loads(line) for line in final(tmp_path / "a").splitlines()]
    assert len(rows) == len(questions)
    assert ask(questions, says, tmp_path / "a", {}, batch_size=4) == answers


def test_whatever_a_model_says_comes_back_as_it_was(questions, tmp_path):
    odd = ['"\\n', "a\nb\r\u2028\x85c", "", "\ud800", "\x00", "\U0001f600", "{}", "null"]

    def strange(prompts):
        return [odd[len(turns[0]["content"]) % len(odd)] for _, turns in prompts]

    first = ask(questions, strange, tmp_path / "a", {}, batch_size=4)
    again = ask(questions, strange, tmp_path / "a", {}, batch_size=4)
    assert first == again
    assert {answer.prediction for answer in first} <= set(odd)


def test_other_settings_or_questions_are_refused_and_nothing_is_lost(questions, tmp_path):
    folder = tmp_path / "a"
    ask(questions, says, folder, {"weights": "1"}, batch_size=4)
    before = final(folder)
    with pytest.raises(ValueError, match=r"other settings \(weights\); delete that folder"):
        ask(questions, says, folder, {"weights": "2"}, batch_size=4)
    # Another batch size is none: a smaller one may be what fits the memory.
    ask(questions, says, folder, {"weights": "1"}, batch_size=5)
    with pytest.raises(ValueError, match=r"answers\.jsonl:\d+: no answer to one of these"):
        ask(questions[1:], says, folder, {"weights": "1"}, batch_size=4)
    assert final(folder) == before


def test_an_evaluation_that_stopped_before_any_answer_leaves_its_settings_free(questions, tmp_path):
    folder = tmp_path / "a"
    AnswerFolder(folder, questions).hold_to({"weights": {}})
    found = ask(questions, says, folder, {"weights": "1"}, batch_size=4)
    assert len(found) == len(questions)
    with pytest.raises(ValueError, match=r"other settings \(weights\)"):
        AnswerFolder(folder, questions).hold_to({"weights": {}})


def test_a_broken_line_in_the_middle_is_named(questions, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "answers.rank0.partial.jsonl").write_text("{nonsense}\n{}\n")
    with pytest.raises(ValueError, match=r"rank0\.partial\.jsonl:1: no answer"):
        ask(questions, says, folder, {}, batch_size=4)


def test_two_runs_in_one_folder_do_not_mix(questions, tmp_path):
    with (
        AnswerFolder(tmp_path / "a", questions).locked(),
        pytest.raises(ValueError, match="another evaluation is writing"),
    ):
        ask(questions, says, tmp_path / "a", {}, batch_size=4)


def test_a_file_system_without_locks_is_named(questions, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("llava_mole.eval.answers.fcntl.flock", refuse)
    with pytest.raises(ValueError, match=r"file system has no locks \(No locks available\)"):
        ask(questions, says, tmp_path / "a", {}, batch_size=4)


def test_a_prompt_that_does_not_fit_is_named_and_the_others_are_answered(questions, tmp_path):
    def refuses(prompts):
        if any(turns[0]["content"].endswith(" 7") for _, turns in prompts):
            raise ValueError("the conversation takes 9 tokens and the context is 8")
        return says(prompts)

    answers = ask(questions, refuses, tmp_path / "a", {}, batch_size=4)
    failed = [answer for answer in answers if answer.prediction is None]
    assert [(answer.id, answer.error.partition(":")[2][:2]) for answer in failed] == [("q7", "7:")]
    assert "takes 9 tokens" in failed[0].error

    def always(prompts):
        raise ValueError("the prompt is empty")

    with pytest.raises(ValueError, match=r"not one of 20 questions could be asked.*is empty"):
        ask(questions, always, tmp_path / "b", {}, batch_size=4)


def test_what_could_not_be_asked_is_tried_anew(questions, tmp_path):
    image = tmp_path / "images" / "1.png"
    good = image.read_bytes()
    image.write_bytes(b"no image")
    folder = tmp_path / "a"
    assert any(answer.error for answer in ask(questions, says, folder, {}, batch_size=5))
    image.write_bytes(good)
    asked_again = []

    def counting(prompts):
        asked_again.extend(prompts)
        return says(prompts)

    assert not any(answer.error for answer in ask(questions, counting, folder, {}, batch_size=5))
    assert len(asked_again) == 5
    ask(questions, says, tmp_path / "never", {}, batch_size=5)
    assert final(folder) == final(tmp_path / "never")


def test_a_final_file_that_was_cut_is_completed(questions, whole, tmp_path):
    file = tmp_path / "whole" / "answers.jsonl"
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:7]))
    ask(questions, says, tmp_path / "whole", {}, batch_size=3)
    assert file.read_bytes() == whole


def test_the_last_reason_is_the_one_that_is_shown(questions, tmp_path):
    image = tmp_path / "images" / "1.png"
    image.unlink()
    first = ask(questions, says, tmp_path / "a", {}, batch_size=5)
    image.write_bytes(b"no image")
    second = ask(questions, says, tmp_path / "a", {}, batch_size=5)
    errors = [[answer.error for answer in answers if answer.error] for answers in (first, second)]
    assert [len(reasons) for reasons in errors] == [5, 5]
    assert all("No such file" in reason for reason in errors[0])
    assert all("not a readable" in reason for reason in errors[1])


def test_a_cut_final_file_beside_a_journal_loses_neither(questions, whole, tmp_path):
    folder = tmp_path / "whole"
    rows = whole.splitlines(keepends=True)
    (folder / "answers.jsonl").write_bytes(b"".join(rows[:7]))
    (folder / "answers.rank0.partial.jsonl").write_bytes(b"".join(rows[7:]))
    ask(questions, lambda prompts: pytest.fail("asked again"), folder, {}, batch_size=3)
    assert final(folder) == whole


def test_settings_that_are_no_object_are_named(questions, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "settings.json").write_text("[]")
    (tmp_path / "a" / "answers.rank0.partial.jsonl").touch()
    with pytest.raises(ValueError, match=r"settings\.json: not readable"):
        ask(questions, says, tmp_path / "a", {}, batch_size=4)
