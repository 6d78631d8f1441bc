"""The folder of one benchmark's answers: nothing lost, nothing doubled, whatever stops the run.

While questions are asked, each rank appends its answers to a journal of its own,
``answers.rank0.partial.jsonl``, and every line is on the disk before the next batch begins. When
all are there, ``answers.jsonl`` is written in the order of the questions, in one step, and the
journals go. A run that was stopped reads the journals, of however many ranks, and goes on.

``settings.json`` says what the answers depend on; with other settings the folder is refused.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_mole.eval.questions import Question
from llava_mole.eval.scores import Answer
from llava_mole.files import replace_json, replace_text

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps two runs apart
    fcntl = None


class AnswerFolder:
    """Answers to ``questions`` below ``folder``.

    Args:
        folder: made if it is not there.
        questions: all of them, in order.
    """

    def __init__(self, folder: Path, questions: Sequence[Question]) -> None:
        self.folder = folder
        self.questions = questions
        self.final = folder / "answers.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the folder.

        Raises:
            ValueError: another run is at work in it.
        """
        with open(self.folder / ".lock", "w", encoding="utf-8") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ValueError(
                        f"{self.folder}: another evaluation is writing its answers there; wait "
                        "for it, or give another --output"
                    ) from None
                except OSError as error:
                    raise ValueError(
                        f"{self.folder}: its file system has no locks ({error.strerror}); give an "
                        "--output on another one, or mount it with them"
                    ) from None
            yield

    def hold_to(self, settings: Mapping[str, Any]) -> None:
        """Answers that are there must have been given under the same ``settings``.

        Raises:
            ValueError: they were not; names what differs.
        """
        file = self.folder / "settings.json"
        settings = json.loads(json.dumps(settings))
        # Of an evaluation that stopped before its first answer nothing hangs on its settings.
        if file.exists() and any(place.exists() for place in (self.final, *self._journals())):
            try:
                before = json.loads(file.read_text(encoding="utf-8"))
                keys = sorted(before.keys() | settings.keys())
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{file}: not readable ({error}); delete {self.folder}") from None
            if changed := [key for key in keys if before.get(key) != settings.get(key)]:
                raise ValueError(
                    f"{self.folder} holds answers given under other settings "
                    f"({', '.join(changed)}); delete that folder to ask afresh, or give another "
                    "--output"
                )
        replace_json(file, settings)

    def repair(self) -> None:
        """Makes what is there fit to go on from.

        The last line of a journal that a crash cut off is dropped. A final file that lacks answers,
        or has questions that could not be asked, becomes a journal again: those are tried anew.
        """
        if self.final.exists():
            known = self.known()
            if len(known) < len(self.questions) or any(a.error for a in known.values()):
                # Never in place of a journal that is there.
                free = (self._journal(number) for number in itertools.count())
                os.replace(self.final, next(file for file in free if not file.exists()))
        for journal in self._journals():
            raw = journal.read_bytes()
            whole = raw.rfind(b"\n") + 1
            if whole < len(raw):
                os.truncate(journal, whole)

    def known(self) -> dict[str, Answer]:
        """All answers so far, by id.

        Raises:
            ValueError: a line that is no answer to one of the questions; names file and line.
        """
        files = [self.final] if self.final.exists() else self._journals()
        texts = {question.id: question.text for question in self.questions}
        found: dict[str, Answer] = {}
        for file in files:
            for number, line in enumerate(file.read_bytes().splitlines(), start=1):
                try:
                    row = json.loads(line)
                    answer = Answer(row["id"], row["prediction"], row.get("error", ""))
                    if texts[answer.id] != row["question"]:
                        raise KeyError(answer.id)
                except (ValueError, KeyError, TypeError):
                    raise ValueError(
                        f"{file}:{number}: no answer to one of these questions; delete "
                        f"{self.folder} to ask afresh"
                    ) from None
                # What was tried anew with success may stand in another rank's journal.
                before = found.get(answer.id)
                if before is None or before.error or not answer.error:
                    found[answer.id] = answer
        return found

    @contextlib.contextmanager
    def journal(self, rank: int) -> Iterator["Journal"]:
        """This rank's journal, open for appending."""
        with open(self._journal(rank), "ab") as file:
            yield Journal(file)

    def finish(self) -> None:
        """Writes ``answers.jsonl`` from the journals, then removes them.

        Raises:
            ValueError: not all questions are answered.
        """
        known = self.known()
        if missing := [question.id for question in self.questions if question.id not in known]:
            raise ValueError(
                f"{self.folder}: {len(missing)} of {len(self.questions)} questions are not "
                f"answered, the first {missing[0]!r}; run the same command again"
            )
        if not self.final.exists():
            lines = [line_of(question, known[question.id]) for question in self.questions]
            replace_text(self.final, "".join(lines))
        for journal in self._journals():
            journal.unlink()

    def _journal(self, rank: int) -> Path:
        return self.folder / f"answers.rank{rank}.partial.jsonl"

    def _journals(self) -> list[Path]:
        return sorted(self.folder.glob("answers.rank*.partial.jsonl"))


class Journal:
    """Appends answers; each is on the disk when `append` returns."""

    def __init__(self, file) -> None:
        self._file = file

    def append(self, pairs: Sequence[tuple[Question, Answer]]) -> None:
        """Writes the answers of a batch and waits for the disk."""
        for question, answer in pairs:
            self._file.write(line_of(question, answer).encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())


def line_of(question: Question, answer: Answer) -> str:
    """An answer as a line of ``answers.jsonl``."""
    row = {"id": answer.id, "question": question.text, "prediction": answer.prediction}
    if answer.error:
        row["error"] = answer.error
    # Escaped: a model may write anything, halves of characters too, and line separators.
    return json.dumps(row) + "\n"
