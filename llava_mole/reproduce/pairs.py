"""A claim's comparisons as single differences of two rows, each in one column or on the mean."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from llava_mole.config import ConfigError
from llava_mole.reproduce.claims import (
    MEAN,
    NEEDS_MARGIN,
    Claim,
    Claims,
    Comparison,
    Expectation,
    Quantity,
    names_of,
)
from llava_mole.reproduce.sums import Term, mean_terms


@dataclass(frozen=True)
class Pair:
    """One difference to judge: of two rows, in one column.

    Attributes:
        row: name.
        against: name; of a mean also that of one of the claims' baselines.
        beyond: two names whose difference is subtracted, or none.
        column: a benchmark's column, a quantity's name, or ``mean``.
        expect: where the difference should lie.
        margin: in the column's points; 0 where none is asked for and none is given.
        terms: what is added up.
        quantity: None for a score.
    """

    row: str
    against: str
    beyond: tuple[str, ...]
    column: str
    expect: Expectation
    margin: float
    terms: tuple[Term, ...]
    quantity: Quantity | None = None

    def of(self, row: str) -> "Pair":
        """The same with another row in its row's place."""
        terms = tuple((w, row if name == self.row else name, c) for w, name, c in self.terms)
        return replace(self, row=row, terms=terms)


def pairs(
    claims: Claims, claim: Claim, scale: str, columns: Mapping[str, Collection[str]]
) -> list[Pair]:
    """All differences that a claim speaks of, at one scale.

    Args:
        claims: the file.
        claim: one of its claims.
        scale: its margins are taken.
        columns: domain to the columns that it is measured in there.

    Raises:
        ValueError: a margin that is asked for is missing, or the scale has no such domain.
    """
    found = []
    for comparison in claim.comparisons:
        for column in _columns(comparison, scale, columns):
            margin = claims.margins.get(scale, {}).get(column)
            if margin is None and comparison.expect in NEEDS_MARGIN:
                raise ConfigError(
                    f"{comparison.expect} of {comparison.row} in {column!r} needs a "
                    f"margin; add margins.{scale}.{column}"
                )
            for row, against in itertools.product(
                names_of(comparison.row), names_of(comparison.against)
            ):
                signed = [(1, row), (-1, against)]
                signed += zip((-1, 1), comparison.beyond, strict=False)
                terms = [
                    term
                    for sign, name in signed
                    for term in _terms(claims, comparison, column, columns, name, sign)
                ]
                found.append(
                    Pair(
                        row,
                        against,
                        tuple(comparison.beyond),
                        column,
                        comparison.expect,
                        margin or 0.0,
                        tuple(terms),
                        claims.quantities.get(column) if comparison.quantity else None,
                    )
                )
    return found


def _columns(
    comparison: Comparison, scale: str, columns: Mapping[str, Collection[str]]
) -> list[str]:
    for domain in comparison.domains:
        if domain not in columns:
            raise ConfigError(
                f"comparison of {comparison.row}: scale {scale!r} has no domain {domain!r}; "
                f"it has {', '.join(columns)}"
            )
    if comparison.quantity:
        return [comparison.quantity]
    if comparison.mean:
        return [MEAN]
    return [column for domain in comparison.domains for column in columns[domain]]


def _terms(
    claims: Claims,
    comparison: Comparison,
    column: str,
    columns: Mapping[str, Collection[str]],
    name: str,
    sign: int,
) -> list[Term]:
    """A row's terms, or a baseline's: there each domain has a row of its own."""
    if column != MEAN:
        return [(sign, name, column)]
    places = {domain: columns[domain] for domain in comparison.domains}
    return mean_terms(places, claims.baselines.get(name, name), sign)
