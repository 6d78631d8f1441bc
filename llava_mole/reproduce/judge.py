"""Judges the claims: by what was measured, and by what the paper prints."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llava_mole.reproduce import intervals, verdict
from llava_mole.reproduce.claims import PAPER_COLUMNS, Claim, Claims, Quantity
from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.pairs import Pair, pairs
from llava_mole.reproduce.sums import lacking, weighted
from llava_mole.reproduce.types import Measured, Row


@dataclass(frozen=True)
class Printed:
    """One comparison by print.

    Attributes:
        pair: the comparison, in a column of the paper.
        difference: of the printed numbers, in the column's points; None where one is not printed.
        verdict: ``supported``, ``not supported`` or ``not in the paper``.
    """

    pair: Pair
    difference: float | None
    verdict: str


@dataclass(frozen=True)
class Outcome:
    """One comparison as measured.

    Attributes:
        pair: the comparison, in a column of the scale.
        difference: None where it was not measured.
        verdict: ``supported``, ``not supported``, ``undecided`` or ``not measured``.
        missing: rows without this column, or a sentence on why there is no difference.
        control: the same difference with the equal-parameter control in the row's place.
        against: two-sided p of what is expected, adjusted over the claim's comparisons (Holm).
    """

    pair: Pair
    difference: Difference | None
    verdict: str
    missing: tuple[str, ...] = ()
    control: Difference | None = None
    against: float | None = None

    @property
    def of_one_seed(self) -> bool:
        """Whether it rests on one training of each row, so that another may come out otherwise."""
        found = self.difference
        return found is not None and found.kind == intervals.QUESTIONS and len(found.seeds) == 1

    @property
    def said(self) -> str:
        """The verdict for people, with what it rests on where that is little."""
        return f"{self.verdict} (one seed)" if self.of_one_seed else self.verdict

    @property
    def negligible(self) -> bool:
        """Whether the difference is shown to be smaller than the margin."""
        if self.difference is None or not self.pair.margin:
            return False
        return verdict.negligible(self.difference.low, self.difference.high, self.pair.margin)


@dataclass(frozen=True)
class Judgement:
    """A claim and its verdicts.

    Attributes:
        name: ``C1``.
        claim: what it says.
        printed: its comparisons by print.
        outcomes: its comparisons as measured.
    """

    name: str
    claim: Claim
    printed: Sequence[Printed]
    outcomes: Sequence[Outcome]

    @property
    def by_print(self) -> str:
        """The claim's verdict by the printed numbers."""
        return verdict.of_claim([one.verdict for one in self.printed])

    @property
    def verdict(self) -> str:
        """The claim's verdict by what was measured."""
        return verdict.of_claim([one.verdict for one in self.outcomes])

    @property
    def said(self) -> str:
        """The verdict for people, with what it rests on where that is little."""
        found = [one.of_one_seed for one in self.outcomes if one.difference is not None]
        if not any(found):
            return self.verdict
        return f"{self.verdict} ({'one seed' if all(found) else 'in part one seed'})"

    @property
    def missing(self) -> list[str]:
        """What is not there, without repetition."""
        return list(dict.fromkeys(name for one in self.outcomes for name in one.missing))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Fewest and most seeds of a measured comparison; empty if there is none."""
        counts = [len(one.difference.seeds) for one in self.outcomes if one.difference]
        return (min(counts), max(counts)) if counts else ()


def judge(
    claims: Claims,
    rows: Sequence[Row],
    measured: Mapping[str, Measured],
    scale: str,
    columns: Mapping[str, Sequence[str]],
    own: Mapping[str, Mapping[str, Measured]] | None = None,
) -> list[Judgement]:
    """Every claim with its verdicts.

    Args:
        claims: see `llava_mole.reproduce.claims.load`.
        rows: with their printed numbers.
        measured: by row's name; rows without are not measured.
        scale: whose margins hold for what was measured; ``paper``'s hold for what is printed.
        columns: the scale's columns of each domain.
        own: by claim, what was measured with its own seeds, for those that have some.

    Raises:
        ValueError: a margin is missing.
    """
    own = own or {}
    numbers: dict[str, Mapping[str, float]] = {}
    for row in rows:
        numbers.setdefault(row.name, row.printed)
    judgements = []
    for name, claim in claims.claims.items():
        printed = [by_print(pair, numbers) for pair in pairs(claims, claim, "paper", PAPER_COLUMNS)]
        outcomes = [
            _outcome(pair, own.get(name, measured), claims)
            for pair in pairs(claims, claim, scale, columns)
        ]
        judgements.append(Judgement(name, claim, printed, _adjusted(outcomes)))
    return judgements


def by_print(pair: Pair, numbers: Mapping[str, Mapping[str, float]]) -> Printed:
    """Judges one comparison by row to column to printed number."""
    if pair.quantity is not None:
        values = pair.quantity.printed
        if any(name not in values for name in (pair.row, pair.against)):
            return Printed(pair, None, verdict.NOT_PRINTED)
        difference = 100 * (values[pair.row] / values[pair.against] - 1)
    elif any(column not in numbers.get(name, {}) for _, name, column in pair.terms):
        return Printed(pair, None, verdict.NOT_PRINTED)
    else:
        # Printed numbers have at most two decimals; sums of them have binary noise.
        difference = round(sum(w * numbers[name][column] for w, name, column in pair.terms), 6)
    return Printed(pair, difference, verdict.of_print(pair.expect, difference, pair.margin))


def difference_of(
    pair: Pair, measured: Mapping[str, Measured], confidence: float
) -> Difference | tuple[str, ...]:
    """A comparison's difference, or what is missing for it.

    Both rows' runs of the same seed are compared; a seed that one of them lacks is left out.
    """
    if pair.quantity is not None:
        return _of_quantity(pair, pair.quantity, measured, confidence)
    if missing := lacking(measured, pair.terms):
        return missing
    found = weighted(measured, pair.terms, confidence)
    return found or _nothing_in_common(name for _, name, _ in pair.terms)


def _of_quantity(
    pair: Pair, quantity: Quantity, measured: Mapping[str, Measured], confidence: float
) -> Difference | tuple[str, ...]:
    row, against = (_by_seed(measured.get(name), quantity) for name in (pair.row, pair.against))
    if not row or not against:
        return tuple(
            name for name, values in ((pair.row, row), (pair.against, against)) if not values
        )
    seeds = sorted(row.keys() & against.keys())
    if not seeds:
        return _nothing_in_common((pair.row, pair.against))
    each = [100 * (row[seed] / against[seed] - 1) for seed in seeds]
    if len(seeds) == 1:
        return intervals.exact(each[0], seeds[0])
    return intervals.over_seeds(each, seeds, confidence)


def _by_seed(measured: Measured | None, quantity: Quantity) -> dict[int, float]:
    figures = measured.extras if measured else {}
    return {
        seed: values[quantity.measured]
        for seed, values in figures.items()
        if values.get(quantity.measured)
    }


def _nothing_in_common(names: Iterable[str]) -> tuple[str]:
    return (f"{' and '.join(dict.fromkeys(names))}: no seed in common",)


def _outcome(pair: Pair, measured: Mapping[str, Measured], claims: Claims) -> Outcome:
    difference = difference_of(pair, measured, claims.confidence)
    control = _control(pair, measured, claims)
    if not isinstance(difference, Difference):
        return Outcome(pair, None, verdict.NOT_MEASURED, difference, control)
    judged = verdict.of_interval(pair.expect, difference.low, difference.high, pair.margin)
    return Outcome(pair, difference, judged, control=control)


def _control(pair: Pair, measured: Mapping[str, Measured], claims: Claims) -> Difference | None:
    """The difference with the control in the row's place, if both rows are not MoLE's."""
    control = claims.controls.get(pair.row)
    against_mole = pair.against in claims.controls or pair.against in claims.controls.values()
    if control is None or against_mole or pair.beyond or control == pair.against:
        return None
    found = difference_of(pair.of(control), measured, claims.confidence)
    return found if isinstance(found, Difference) else None


def _adjusted(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """With p adjusted over the comparisons that were measured."""
    places = [place for place, one in enumerate(outcomes) if one.difference is not None]
    adjusted = verdict.holm(
        verdict.against(outcomes[p].pair.expect, outcomes[p].difference, outcomes[p].pair.margin)
        for p in places
    )
    changed = list(outcomes)
    for place, value in zip(places, adjusted, strict=True):
        one = outcomes[place]
        changed[place] = Outcome(
            one.pair, one.difference, one.verdict, one.missing, one.control, value
        )
    return changed
