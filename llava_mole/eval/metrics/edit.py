"""DocVQA's average normalised Levenshtein similarity (ANLS), of one answer."""

from collections.abc import Sequence
from typing import Literal

from rapidfuzz.distance import Levenshtein

from llava_mole.eval.metrics.rules import as_list, check_rule

_THRESHOLD = 0.5


def anls(
    prediction: str, references: str | Sequence[str], rule: Literal["due", "lmms"] = "due"
) -> float:
    """How near the answer is to the nearest reference, 0 where that is not near enough.

    The similarity is 1 - Levenshtein distance / length of the longer text (Biten et al., "Scene
    Text Visual Question Answering", arXiv 1905.13648, Eq. 1).

    Args:
        prediction: the model's answer.
        references: accepted answers.
        rule: ``due``, the DUE benchmark's ``AnlsScorer`` with which UReader is scored
            (X-PLUG/mPLUG-DocOwl): upper case, nothing stripped, a similarity of 0.5 or less is 0.
            (UReader's harness deletes line feeds from predictions beforehand.) ``lmms``,
            EvolvingLMMs-Lab/lmms-eval's ``anls``: lower case, outer space stripped and inner
            collapsed, but divided by the length before that; a similarity below 0.5 is 0.

    Raises:
        ValueError: no references, or no such rule.
    """
    check_rule(rule, "due", "lmms")
    references = as_list(references)
    if not references:
        raise ValueError("anls needs at least one reference")
    if rule == "due":
        best = max(_due_similarity(prediction, one) for one in references)
        return best if best > _THRESHOLD else 0.0
    best = max(_lmms_similarity(prediction, one) for one in references)
    return best if best >= _THRESHOLD else 0.0


def _due_similarity(prediction: str, reference: str) -> float:
    prediction, reference = prediction.upper(), reference.upper()
    return _similarity(prediction, reference, max(len(prediction), len(reference)))


def _lmms_similarity(prediction: str, reference: str) -> float:
    # Upper case, as "ß" is one character in lower case and two in upper.
    longest = max(len(prediction.upper()), len(reference.upper()))
    return _similarity(_collapse(prediction), _collapse(reference), longest)


def _similarity(a: str, b: str, longest: int) -> float:
    return 1.0 - Levenshtein.distance(a, b) / longest if longest else 1.0


def _collapse(text: str) -> str:
    return " ".join(text.lower().split())
