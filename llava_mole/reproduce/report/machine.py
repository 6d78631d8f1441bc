"""The report for programs: every figure with what it rests on."""

from collections.abc import Mapping, Sequence
from typing import Any

from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.judge import Judgement
from llava_mole.reproduce.report.ablations import ablations, as_json
from llava_mole.reproduce.report.prediction import Point
from llava_mole.reproduce.report.prediction import as_json as prediction_as_json
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.routers import information


def machine(
    results: Results, stamp: Mapping[str, Any], points: Sequence[Point] = ()
) -> dict[str, Any]:
    """What ``report.json`` holds.

    The paper's values stand beside a row's at the paper's scale only; the claims' verdicts by print
    are there at every scale.
    """
    rows = []
    for row in results.rows:
        estimates = {
            column: _difference(results.estimate(row.name, column)) for column in results.shown
        }
        entry: dict[str, Any] = {
            "table": row.table,
            "number": row.number,
            "name": row.name,
            "title": row.title,
            "kind": row.kind,
            "measured": {column: value for column, value in estimates.items() if value},
        }
        if (bits := information(results, row.name)) is not None:
            entry["mutual_information"] = _difference(bits)
        if results.comparable:
            entry["paper"] = dict(row.printed)
        rows.append(entry)
    return {
        "scale": results.scale.name,
        "label": results.scale.label,
        "confidence": results.claims.confidence,
        "margins": results.claims.margins.get(results.scale.name, {}),
        "stamp": _plain(stamp),
        "claims": [_judgement(one) for one in results.judgements],
        "rows": rows,
        "ablations": [_plain(as_json(line)) for line in ablations(results)],
        **({"prediction": _plain(prediction_as_json(points))} if points else {}),
    }


def _judgement(judgement: Judgement) -> dict[str, Any]:
    return {
        "name": judgement.name,
        "text": judgement.claim.text,
        "source": judgement.claim.source,
        "by_print": judgement.by_print,
        "verdict": judgement.verdict,
        "missing": judgement.missing,
        "printed": [
            {**_pair(one), "difference": one.difference, "verdict": one.verdict}
            for one in judgement.printed
        ],
        "comparisons": [
            {
                **_pair(one),
                "verdict": one.verdict,
                "difference": _difference(one.difference),
                "p_holm": one.against,
                "equal_parameters_instead": _difference(one.control),
                "missing": list(one.missing),
            }
            for one in judgement.outcomes
        ],
    }


def _pair(one: Any) -> dict[str, Any]:
    pair = one.pair
    return {
        "row": pair.row,
        "against": pair.against,
        "beyond": list(pair.beyond),
        "column": pair.column,
        "expect": pair.expect,
        "margin": pair.margin,
    }


def _difference(found: Difference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "over": found.kind,
        "seeds": list(found.seeds),
        "each": list(found.each),
        "p_signs": found.flips,
    }


def _plain(value: Any) -> Any:
    """Whatever JSON has; anything else as text."""
    if isinstance(value, Difference):
        return _difference(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
