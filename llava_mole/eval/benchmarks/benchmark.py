"""What a benchmark is: where its questions are read, by which rule each part is scored."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from llava_mole.data.records import BadRecord, Record
from llava_mole.eval.questions import Question

Score = Callable[[str, Sequence[str]], float]


@dataclass(frozen=True)
class Rule:
    """How one answer is scored.

    Attributes:
        name: shown in reports, with the published scorer's name.
        score: published rule, (prediction, references) to [0, 1].
        strict: the same without the published rule's quirks; None where it has none.
    """

    name: str
    score: Score
    strict: Score | None = None


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: as given on the command line.
        title: for reports.
        read: the questions of a folder (or of a file, for a set of one's own), in order.
        rules: part to rule, parts in the order of the paper's columns.
        total: the paper's column over all parts; "" where it has none.
        total_is: ``sum`` of the parts' means (eHub), or ``mean`` over all questions.
        published: number of questions of each part in the published benchmark.
        max_new_tokens: longest answer.
        authors_prefix: what the paper's authors put in front of each question; None where their
            code does not ask this benchmark.
        notes: said in the report.
        remark: what is to be said about these questions; "" for nothing.
    """

    name: str
    title: str
    read: Callable[[Path], list[Question]]
    rules: Mapping[str, Rule]
    total: str = ""
    total_is: Literal["sum", "mean"] = "mean"
    published: Mapping[str, int] = field(default_factory=dict)
    max_new_tokens: int = 128
    authors_prefix: str | None = None
    notes: tuple[str, ...] = ()
    remark: Callable[[Sequence[Question]], str] = lambda questions: ""

    def load(self, folder: Path, limit: int | None = None) -> list[Question]:
        """The questions, at most ``limit`` of each part, in the order of the files.

        Raises:
            ValueError: the folder is not in the published layout, a question can't be read, or an
                id stands twice.
        """
        found = self.read(folder)
        if not found:
            raise ValueError(f"{self.name}: no questions in {folder}; fetch the benchmark again")
        seen: dict[str, Question] = {}
        for question in found:
            if question.id in seen:
                raise ValueError(
                    f"{question.place}: id {question.id!r} stands at {seen[question.id].place} "
                    "already; give each question an id of its own"
                )
            seen[question.id] = question
        if limit is None:
            return found
        taken = dict.fromkeys(self.rules, 0)
        kept = []
        for question in found:
            taken[question.part] += 1
            if taken[question.part] <= limit:
                kept.append(question)
        return kept


def first_folder(benchmark: str, folder: Path, places: Sequence[str], needs: str) -> Path:
    """The first of ``folder / place`` that has ``needs``.

    Args:
        benchmark: its name, for the error.
        folder: what the user gave.
        places: subfolders to look into, "" for the folder itself.
        needs: path that must be there.

    Raises:
        ValueError: none has it; says what is missing and what was looked at.
    """
    for place in places:
        if (folder / place / needs).exists():
            return folder / place
    looked = " and ".join(str(folder / place / needs) for place in places)
    raise ValueError(
        f"{benchmark}: {folder} is not in the published layout: none of {looked} is there; give "
        "the folder that holds it with --data, or with --benchmarks "
        f"{benchmark}=FOLDER"
    )


def read_json(file: Path) -> Any:
    """A JSON file whole.

    Raises:
        ValueError: it can't be read; names the file.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON ({error}); fetch it again") from None


def rows(file: Path, content: object, within: str = "") -> Iterator[tuple[int, str, dict]]:
    """``(index, place, object)`` of a list of JSON objects that ``file`` holds.

    Args:
        file: it was read from.
        content: what should be that list.
        within: where in the file it stands, for errors.

    Raises:
        ValueError: it is no list, or an item is no object; names file and item.
    """
    if not isinstance(content, list):
        raise ValueError(f"{file}{within}: must be a list of questions; fetch it again")
    if not content:
        raise ValueError(f"{file}{within}: has no questions; fetch it again")
    for index, row in enumerate(content):
        place = f"{file}{within}, item {index}"
        if not isinstance(row, dict):
            raise ValueError(f"{place}: must be a JSON object; fetch the file again")
        yield index, place, row


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")


def jsonl(file: Path) -> list[tuple[int, dict]]:
    """``(line, object)`` of a JSONL file, blank lines passed over.

    Raises:
        ValueError: a line that is not a JSON object; names file and line.
    """
    found = []
    try:
        with open(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.isspace():
                    continue
                try:
                    row = json.loads(line, parse_constant=_no_number)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{file}:{number}: not JSON ({error}); repair it") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{file}:{number}: must be a JSON object; repair it")
                found.append((number, row))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable ({error}); fetch it again") from None
    return found


def whole(items: Sequence[Record | BadRecord]) -> list[Record]:
    """The records of a source, none of them bad: a benchmark is scored whole or not at all.

    Raises:
        ValueError: bad records; says how many and names the first.
    """
    bad = [item for item in items if isinstance(item, BadRecord)]
    if bad:
        raise ValueError(f"{len(bad)} question(s) can't be read, the first: {bad[0]}")
    return list(items)


def text_field(row: Mapping, keys: Sequence[str], place: str) -> str:
    """The first of ``keys`` in ``row``, a text.

    Raises:
        ValueError: none is there, or it is no text; names place and key.
    """
    for key in keys:
        value = row.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            return value
        if value is not None:
            raise ValueError(f"{place}: {key!r} must be a text, not {type(value).__name__}")
    raise ValueError(f"{place}: {' or '.join(map(repr, keys))} is missing; fetch the file again")


def text_list(row: Mapping, key: str, place: str) -> tuple[str, ...]:
    """A text or a list of texts, not empty.

    Raises:
        ValueError: something else; names place and key.
    """
    value = row.get(key)
    values = value if isinstance(value, list) else [value]
    values = [
        str(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for v in values
    ]
    if not values or not all(isinstance(v, str) for v in values):
        raise ValueError(f"{place}: {key!r} must be a text or a list of texts; fetch it again")
    return tuple(values)


def source_items(source) -> list[Record | BadRecord]:
    """All items of a data source (`llava_mole.data.sources`), in order."""
    return list(itertools.chain.from_iterable(source.read(piece) for piece in source.pieces()))
