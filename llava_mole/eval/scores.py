"""Answers to scores: each question's by its benchmark's rule, and the lines of a result table."""

from dataclasses import dataclass

from llava_mole.eval.questions import Question


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        id: of the question.
        prediction: its text; None where nothing was asked, as the image could not be read or the
            prompt is longer than the context.
        error: why not; "" where there is a prediction.
    """

    id: str
    prediction: str | None
    error: str = ""


@dataclass(frozen=True)
class Scored:
    """A question with its answer and scores in [0, 1].

    Attributes:
        question: the question.
        answer: the answer to it.
        score: by the published rule; 0 where nothing was asked.
        strict: by the strict rule; None where the benchmark has none.
    """

    question: Question
    answer: Answer
    score: float
    strict: float | None


@dataclass(frozen=True)
class Estimate:
    """A mean score in per cent, as the paper prints it, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One line of a benchmark's results.

    Attributes:
        kind: ``total``, ``part`` or ``dataset``.
        name: ``All``, an ability, a data set.
        part: the part that a data set belongs to; the name itself for a part, "" for the total.
        questions: how many there are; every one counts.
        failed: those among them that could not be asked, scored 0.
        score: by the published rule.
        strict: by the strict rule; None where the benchmark has none.
    """

    kind: str
    name: str
    part: str
    questions: int
    failed: int
    score: Estimate
    strict: Estimate | None
