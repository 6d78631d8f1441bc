"""ChartQA's relaxed accuracy."""

import math
import re
from typing import Literal

from llava_mole.eval.metrics.rules import check_rule

_TOLERANCE = 0.05
_THOUSANDS_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_YEAR = re.compile(r"[0-9]{4}")
_YEARS = range(1500, 2101)


def relaxed_accuracy(
    prediction: str, target: str, rule: Literal["chartqa", "strict"] = "chartqa"
) -> bool:
    """Whether a number is within 5 % of the target, or another answer equal to it but for case.

    Source: Masry et al., "ChartQA", arXiv 2203.10244, section 5.1, as X-PLUG/mPLUG-DocOwl
    (``UReader/pipeline/eval_utils/tools.py``) computes it for UReader: line feeds are deleted, one
    final period is taken off the target alone, and "5%" is 0.05.

    Args:
        prediction: the model's answer.
        target: the true answer.
        rule: ``chartqa`` is the published one. By it a target of 0 must be met letter by letter
            ("0.0" is wrong), "1,000" is no number, Python's "1_000", "nan" and "inf" are, and the
            year 2014 is within 5 % of 1920. ``strict`` is ours: outer space, thousands commas and
            one final period count on neither side, numbers are finite decimals and are compared
            as such ("0.0" is 0, and 95 % is within 5 % of 100 %), and a target that is a
            bare year (four digits, 1500 to 2100) must be met exactly. A plain count in that range
            is taken for a year too.

    Raises:
        ValueError: there is no such rule.
    """
    check_rule(rule, "chartqa", "strict")
    prediction, target = prediction.replace("\n", ""), target.replace("\n", "")
    if rule == "strict":
        return _strictly(_tidy(prediction), _tidy(target))
    target = target.removesuffix(".")
    value, aim = _number(prediction), _number(target)
    if value is None or not aim:
        return prediction.lower() == target.lower()
    return abs(value - aim) / abs(aim) <= _TOLERANCE


def _strictly(prediction: str, target: str) -> bool:
    value, aim = _decimal(prediction), _decimal(target)
    if value is None or aim is None:
        return prediction.lower() == target.lower()
    if _YEAR.fullmatch(target) and int(target) in _YEARS:
        return value == aim
    # The slack is for rounding alone: 0.95 misses 1 by more than 0.05 in floating point.
    return abs(value - aim) <= _TOLERANCE * abs(aim) * (1 + 1e-9)


def _number(text: str) -> float | None:
    """The value of what Python reads as a number, a trailing % as hundredths."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _decimal(text: str) -> float | None:
    """The value of a finite number, thousands commas allowed."""
    value = None if "_" in text else _number(_THOUSANDS_COMMA.sub("", text))
    return value if value is not None and math.isfinite(value) else None


def _tidy(text: str) -> str:
    return text.strip().removesuffix(".").strip()
