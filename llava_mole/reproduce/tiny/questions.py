"""The tiny scale's questions, and the conventions in which its three domains answer them.

All domains are asked the same four questions. What is true is measured on the image; how it is said
is the domain's own: each has a code book that gives the four values of a quantity the letters a to
d, and no value has the same letter in two domains. So a model has to see which domain an image is
from, and what it learns of one domain's code is wrong in the others. That is the data conflict.

Before it is frozen the base model learns to answer in *plain* words and, where it is asked to, by
letters in plain order (a for the first value). In both all domains are alike: it knows what there
is to see and how letters answer, and favours no domain's code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llava_mole.reproduce.tiny.measure import Measures

DOMAINS = ("general", "document", "biomedicine")
LEVELS = ("least", "less", "more", "most")
PLACES = ("upper-left", "upper-right", "lower-left", "lower-right")
LETTERS = "abcd"
BY_LETTER = "Answer by letter ."
# Not asked where two halves are this alike, or the next level is this close (as a share of the
# domain's images): people would not agree either.
CLEAR_HALVES = 0.08
CLEAR_SHARE = 0.04


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        name: of its kind.
        text: as it is asked.
        values: its answers in plain words, by value 0 to 3.
        codes: domain to its letters, by value.
    """

    name: str
    text: str
    values: tuple[str, ...]
    codes: dict[str, str]


def _books(*books: str) -> dict[str, str]:
    return dict(zip(DOMAINS, books, strict=True))


QUESTIONS = (
    Question("where", "Where is most of it ?", PLACES, _books("dbac", "cdba", "bacd")),
    Question("covered", "How much of it is covered ?", LEVELS, _books("bdca", "cabd", "dcab")),
    Question("bright", "How bright is it ?", LEVELS, _books("dcab", "abdc", "bdca")),
    Question("warm", "How warm are its colors ?", LEVELS, _books("bcda", "abcd", "dabc")),
)


def values_of(measures: Sequence[Measures], reference: Sequence[Measures]) -> np.ndarray:
    """The value of every question for every image.

    A level is a quarter of the domain's own images: bright is what is bright for a document.

    Args:
        measures: of n images of one domain.
        reference: of the domain's training images, which set the quarters.

    Returns:
        (n, 4) int64, the value 0 to 3 of each question; -1 where it is not clear.
    """
    left, upper = (np.array([getattr(m, k) for m in measures]) for k in ("left", "upper"))
    where = (left < 0) + 2 * (upper < 0)
    clear = (abs(left) > CLEAR_HALVES) & (abs(upper) > CLEAR_HALVES)
    columns = [np.where(clear, where, -1)]
    for question in QUESTIONS[1:]:
        of_all = np.sort([getattr(m, question.name) for m in reference])
        share = np.searchsorted(of_all, [getattr(m, question.name) for m in measures])
        share = share / len(of_all)
        quarters = np.array([0.25, 0.5, 0.75])
        clear = (abs(share[:, None] - quarters) > CLEAR_SHARE).all(1)
        columns.append(np.where(clear, (share[:, None] > quarters).sum(1), -1))
    return np.stack(columns, axis=1).astype(np.int64)
