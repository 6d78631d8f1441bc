"""PathVQA's scores of open and closed questions, as LLaVA-Med takes them."""

from collections import Counter
from typing import Literal

from llava_mole.eval.metrics.normalise import normalise
from llava_mole.eval.metrics.rules import check_rule, first_yes_no


def open_recall(
    prediction: str, reference: str, rule: Literal["llava-med", "strict"] = "llava-med"
) -> float:
    """Share of the reference's words that the answer to an open question holds.

    Source: Li et al., "LLaVA-Med", arXiv 2306.00890, ``calculate_f1score`` of microsoft/LLaVA-Med,
    ``llava/eval``, by way of ``run_eval.evaluate``. Both sides are brought into the VQA challenge's
    form first (`normalise`), twice, as there.

    Args:
        prediction: the model's answer.
        reference: the true answer.
        rule: ``llava-med`` is the published one. With cntP and cntG a word's count in prediction
            and reference it is ``sum(cntP of the shared) / (sum(cntP of the shared) + sum(cntG of
            the missed))``: a repeated word of the *prediction* counts again, so that three times
            "carcinoma" recalls 3/5 of "squamous cell carcinoma". ``strict`` is ours, the recall of
            multisets ``sum(min(cntP, cntG)) / sum(cntG)``. Both are 0 where a side has no words.

    Raises:
        ValueError: there is no such rule.
    """
    check_rule(rule, "llava-med", "strict")
    said, true = Counter(_form(prediction).split()), Counter(_form(reference).split())
    if not said or not true:
        return 0.0
    if rule == "strict":
        return (said & true).total() / true.total()
    shared = sum(count for word, count in said.items() if word in true)
    missed = sum(count for word, count in true.items() if word not in said)
    return shared / (shared + missed)


def closed_accuracy(
    prediction: str, reference: str, rule: Literal["llava-med", "strict"] = "llava-med"
) -> bool:
    """Whether the answer to a yes/no question is right.

    Source: ``run_eval.evaluate`` of microsoft/LLaVA-Med, ``llava/eval``. Its first release and its
    ``run_eval_pvqa`` leave out of the mean every wrong answer that says yes or no; the correction
    of December 2023 keeps them, as we do: every question counts.

    Args:
        prediction: the model's answer.
        reference: ``yes`` or ``no``.
        rule: ``llava-med`` is the published one: the normalised prediction holds the letters "yes"
            or "no" somewhere, and the reference's too. By it "It is normal", "unknown" and "Yes, it
            is normal" answer "no" rightly. ``strict`` is ours: the first of the words yes and no in
            the prediction is the reference's first.

    Raises:
        ValueError: there is no such rule.
    """
    check_rule(rule, "llava-med", "strict")
    if rule == "strict":
        said = first_yes_no(prediction)
        return said is not None and said == first_yes_no(reference)
    said, true = normalise(prediction.lower()), normalise(reference.lower())
    return ("yes" in said or "no" in said) and true in said


def _form(text: str) -> str:
    return normalise(normalise(text.lower()))
