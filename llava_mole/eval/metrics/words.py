"""Tiny LVLM-eHub's word matching."""

import re
from collections.abc import Sequence
from typing import Literal

from llava_mole.eval.metrics.normalise import flatten, normalise
from llava_mole.eval.metrics.rules import as_list, check_rule, first_yes_no


def word_match(
    answer: str, truth: str | Sequence[str], rule: Literal["ehub", "strict"] = "ehub"
) -> bool:
    r"""Whether a true answer occurs in the answer as whole words (Tiny LVLM-eHub).

    Source: Shao et al., "Tiny LVLM-eHub", arXiv 2308.03729, ``VQAEval.evaluate`` of
    OpenGVLab/Multi-Modality-Arena, ``tiny_lvlm_evaluation/utils/tools.py``. Both sides are brought
    into the VQA challenge's form first (`normalise`).

    Args:
        answer: the model's.
        truth: the true answer, or several of which any will do; none at all never match.
        rule: ``ehub`` is the published one, regex ``\b`` on both sides of the truth. By it "$9.00"
            and "50%" do not match themselves, a truth that normalises to nothing ("The") matches
            whatever holds a word, and "Yes, no doubt" matches "No". ``strict`` is ours: an empty
            truth never matches, the truth must touch no letter, digit or underscore on either side,
            and for the truth yes or no the first of these two words in the answer decides.

    Raises:
        ValueError: there is no such rule.
    """
    check_rule(rule, "ehub", "strict")
    said = normalise(flatten(answer))
    truths = [normalise(flatten(one)) for one in as_list(truth)]
    if rule == "strict":
        return any(_strictly(answer, said, one) for one in truths)
    return any(re.search(rf"\b{re.escape(one)}\b", said) for one in truths)


def _strictly(answer: str, said: str, truth: str) -> bool:
    if truth in ("yes", "no"):
        return first_yes_no(answer) == truth
    return truth != "" and re.search(rf"(?<!\w){re.escape(truth)}(?!\w)", said) is not None
