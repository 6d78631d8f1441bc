"""The VQA accuracy of TextVQA: agreement with ten people, each left out once."""

from collections.abc import Sequence

from llava_mole.eval.metrics.normalise import flatten, normalise


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Mean over the references of min(1, matches among the others / 3).

    Source: ``TextVQAAccuracyEvaluator`` and ``EvalAIAnswerProcessor`` of facebookresearch/mmf,
    ``mmf/utils/m4c_evaluators.py`` (M4C, arXiv 1911.06258). Its normalisation is the VQA
    challenge's (`normalise`) after lower case, with commas and question marks deleted and "'s" a
    word of its own.

    The published evaluator insists on ten references. With n of them the score stays below 1 where
    fewer than 4 match.

    Args:
        prediction: the model's answer.
        references: what each person answered, repeated where several said the same.

    Raises:
        ValueError: fewer than two references: leaving one out leaves nothing to match.
    """
    if isinstance(references, str) or len(references) < 2:
        raise ValueError(
            "vqa_accuracy compares with the answers of several people (TextVQA: ten) and got "
            "fewer than two; use word_match or exact_match for questions with one answer"
        )
    answer = _form(prediction)
    matches = sum(_form(one) == answer for one in references)
    with_it_left_out = matches * min(1.0, (matches - 1) / 3)
    with_another_left_out = (len(references) - matches) * min(1.0, matches / 3)
    return (with_it_left_out + with_another_left_out) / len(references)


def _form(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalise(flatten(text))
