"""Whether what is known before a mixture is trained says which of its domains lose, and how much.

A point is one domain in one plain LoRA's mixture: what it scores less the LoRA of the same rank
that saw as much of it and of nothing else. Predictors: the cosine between the domain's gradient and
the others' before training; and what runs on the others alone score on it (the transfer matrix).
Where they predict losses, rank correlations are above 0: the more apart the domains, the more is
lost.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from llava_mole.reproduce.cosines import Cosines
from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.report.content import NOTHING, Cell, Table, interval, number, signed
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.sums import mean_terms
from llava_mole.reproduce.types import PlainLora, Row

TRANSFER = "transfer: score of runs on the others alone"
# Fewer mixtures say nothing about chance.
_LEAST = 4
_RESAMPLES = 2000
# Of one domain in one mixture, by another domain; None where it is not known.
_Relation = Callable[[str, str], float | None]


@dataclass(frozen=True)
class Point:
    """A domain in a mixture.

    Attributes:
        row: the mixture's name.
        domain: whose score.
        loss: mixture less single domain; below 0 where it loses.
        predictors: by name; one that is not known is missing.
    """

    row: str
    domain: str
    loss: Difference
    predictors: Mapping[str, float]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a predictor and the losses.

    Attributes:
        predictor: its name.
        points: how many.
        mixtures: of how many.
        value: the correlation; None where all points have one value.
        low: lower end of its bootstrap interval; None with fewer than four mixtures.
        high: upper end.
    """

    predictor: str
    points: int
    mixtures: int
    value: float | None
    low: float | None
    high: float | None


def points_of(results: Results, cosines: Sequence[Cosines]) -> list[Point]:
    """Every domain of every measured mixture that has its single-domain run, each run once."""
    columns = results.domains
    plain = _distinct(results)
    singles = {_alone(row.plain): row for row in plain if len(row.plain.weights) == 1}
    relations: dict[str, _Relation] = {
        _cosine_name(one): lambda domain, other, one=one: one.between.get((domain, other))
        for one in cosines
    }

    def transfer(domain: str, other: str, rank: int) -> float | None:
        row = singles.get((other, 1.0, rank))
        found = row and results.sum(mean_terms({domain: columns[domain]}, row.name))
        return found.value if found else None

    found = []
    for row in plain:
        if len(row.plain.weights) < 2:
            continue
        rank = row.plain.rank
        own = {**relations, TRANSFER: lambda domain, other, r=rank: transfer(domain, other, r)}
        for domain, weight in row.plain.weights.items():
            single = singles.get((domain, weight * row.plain.epochs, rank))
            if single is None or domain not in columns:
                continue
            terms = mean_terms({domain: columns[domain]}, row.name)
            terms += mean_terms({domain: columns[domain]}, single.name, -1)
            if (loss := results.sum(terms)) is not None:
                predictors = dict(_predicted(row.plain, domain, own))
                found.append(Point(row.name, domain, loss, predictors))
    return found


def predictors_of(points: Sequence[Point]) -> list[str]:
    """Names of the predictors that any point has."""
    return list(dict.fromkeys(name for point in points for name in point.predictors))


def correlation(points: Sequence[Point], predictor: str) -> Correlation:
    """Spearman's correlation with a bootstrap over mixtures, whose points are not independent."""
    known = [point for point in points if predictor in point.predictors]
    rows = list(dict.fromkeys(point.row for point in known))
    groups = [
        np.array([(p.predictors[predictor], p.loss.value) for p in known if p.row == row])
        for row in rows
    ]
    found = Correlation(predictor, len(known), len(rows), None, None, None)
    if len(known) < 3 or (value := _spearman(groups)) is None:
        return found
    found = dataclasses.replace(found, value=value)
    if len(rows) < _LEAST:
        return found

    def resampled(indices: np.ndarray) -> float:
        # A draw in which nothing varies says nothing for the predictor.
        return _spearman([groups[int(index)] for index in indices]) or 0.0

    drawn = stats.bootstrap(
        (np.arange(len(rows)),),
        resampled,
        n_resamples=_RESAMPLES,
        vectorized=False,
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return dataclasses.replace(found, low=float(drawn.low), high=float(drawn.high))


def prediction_table(points: Sequence[Point]) -> Table | None:
    """One line a predictor; None without a point."""
    if not points:
        return None
    rows = []
    for one in (correlation(points, name) for name in predictors_of(points)):
        ends = Cell(NOTHING)
        if one.low is not None and one.high is not None:
            ends = Cell(interval(one.low, one.high, sign=True))
        value = Cell(NOTHING) if one.value is None else Cell(signed(one.value), value=one.value)
        rows.append(
            [Cell(one.predictor), Cell(str(one.points)), Cell(str(one.mixtures)), value, ends]
        )
    lost = sum(point.loss.high < 0 for point in points)
    notes = [
        "A point is a domain in a plain LoRA's mixture: its score there less that of the LoRA of "
        "the same rank which saw as much of it and nothing else, mean over common seeds. A "
        "predictor is its mean over the mixture's other domains, by λ. Above 0: domains that stand "
        "further apart lose more.",
        f"{len(points)} points, of which {lost} lose with their whole interval. They are few and "
        "not independent: points share mixtures, single-domain runs, seeds and test questions, and "
        "there are no more cosines than pairs of domains. A mixture of more domains has lower "
        "means and may lose more whatever the cosines are. The interval is of a bootstrap over "
        "whole mixtures (percentiles), which knows of the first of these alone and is too narrow; "
        "a correlation here is a lead.",
    ]
    header = ["predictor", "points", "mixtures", "Spearman's ρ", "95 % interval"]
    title = "Which mixtures lose: what was known before"
    return Table("table-prediction", title, header, rows, notes)


def points_table(points: Sequence[Point], titles: Callable[[str], str]) -> Table | None:
    """One line a point; None without any."""
    if not points:
        return None
    names = predictors_of(points)
    rows = [
        [
            Cell(titles(one.row)),
            Cell(one.domain),
            Cell(
                signed(one.loss.value),
                (interval(one.loss.low, one.loss.high, sign=True),),
                value=one.loss.value,
            ),
            *[_value(one.predictors.get(name)) for name in names],
        ]
        for one in points
    ]
    header = ["mixture", "domain", "less its single domain", *names]
    return Table("table-points", "Domains in mixtures", header, rows, text=2)


def _value(value: float | None) -> Cell:
    return Cell(NOTHING) if value is None else Cell(number(value), value=value)


def _predicted(
    plain: PlainLora, domain: str, relations: Mapping[str, _Relation]
) -> Iterator[tuple[str, float]]:
    """Each relation's mean over the mixture's other domains, by λ, where all are known."""
    others = {name: weight for name, weight in plain.weights.items() if name != domain}
    for name, relation in relations.items():
        values = [relation(domain, other) for other in others]
        if None not in values:
            yield name, float(np.average(values, weights=list(others.values())))


def _distinct(results: Results) -> list[Row]:
    """The measured plain LoRAs, those that are one run once."""
    found: dict[tuple, Row] = {}
    for row in results.every:
        if row.plain is not None and row.name in results.measured:
            weights = tuple(sorted(row.plain.weights.items()))
            found.setdefault((weights, row.plain.rank, row.plain.epochs), row)
    return list(found.values())


def _alone(plain: PlainLora) -> tuple[str, float, int]:
    """Domain, how often it was shown, rank."""
    ((domain, weight),) = plain.weights.items()
    return domain, weight * plain.epochs, plain.rank


def _cosine_name(one: Cosines) -> str:
    return f"gradient cosine, {one.weights}"


def _spearman(groups: Sequence[np.ndarray]) -> float | None:
    values = np.concatenate(groups)
    if len(values) < 3 or (np.ptp(values, axis=0) == 0).any():
        return None
    return float(stats.spearmanr(values[:, 0], values[:, 1]).statistic)


def as_json(points: Sequence[Point]) -> dict[str, Any]:
    """Points and correlations as mappings, `Difference` values as they are."""
    return {
        "points": [vars(point) for point in points],
        "correlations": [vars(correlation(points, name)) for name in predictors_of(points)],
    }
