"""Scores of single answers, and intervals of their means. Pure functions.

Where a benchmark's published scorer has quirks, the rule of that name keeps them, so that scores
compare with published ones; ``strict`` rules beside them are ours and read answers as people do.
"""

from collections.abc import Callable, Sequence

from llava_mole.eval.metrics.chart import relaxed_accuracy
from llava_mole.eval.metrics.edit import anls
from llava_mole.eval.metrics.exact import exact_match
from llava_mole.eval.metrics.intervals import bootstrap_interval, bootstrap_means, wilson_interval
from llava_mole.eval.metrics.medical import closed_accuracy, open_recall
from llava_mole.eval.metrics.vqa import vqa_accuracy
from llava_mole.eval.metrics.words import word_match


def _best(metric: Callable[[str, str], float]) -> Callable[[str, Sequence[str]], float]:
    def best(prediction: str, references: Sequence[str]) -> float:
        return max(float(metric(prediction, reference)) for reference in references)

    return best


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "exact_match": _best(exact_match),
    "word_match": _best(word_match),
    "relaxed_accuracy": _best(relaxed_accuracy),
    "anls": anls,
    "open_recall": _best(open_recall),
    "closed_accuracy": _best(closed_accuracy),
    "vqa_accuracy": vqa_accuracy,
}
"""Score in [0, 1] of a prediction against its accepted answers, by name; published rules.

Where the metric compares with one answer, the best of the answers counts.
"""

__all__ = [
    "METRICS",
    "anls",
    "bootstrap_interval",
    "bootstrap_means",
    "closed_accuracy",
    "exact_match",
    "open_recall",
    "relaxed_accuracy",
    "vqa_accuracy",
    "wilson_interval",
    "word_match",
]
