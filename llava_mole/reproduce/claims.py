"""The claims as they stand in ``configs/experiments/claims.yaml``, checked and spelt out."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

from llava_mole import config
from llava_mole.config import ConfigError, nearest

# The paper's columns of each domain: those that its printed numbers are judged in.
PAPER_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "general": ("All",),
    "document": ("ChartQA", "DocQA"),
    "biomedicine": ("Open", "Closed"),
}
Expectation = Literal["above", "below", "not_below", "not_above", "within"]
# These ask for a margin.
NEEDS_MARGIN = ("not_below", "not_above", "within")
# Its name, in the folder of the rows.
CLAIMS = "claims.yaml"
# A selection of claims: the comparisons so marked, of whichever claims have some.
HEADLINE = "headline"
# Where a comparison is of a mean over domains, in a column's place.
MEAN = "mean"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One entry of a claim's ``comparisons``: all pairs of ``row`` and ``against``.

    Attributes:
        row: name or names.
        against: name or names that are subtracted; of a mean also a baseline's.
        expect: where the difference should lie.
        domains: it is taken in each column of these.
        mean: or, once, on the mean of these: each the mean of its columns, All as its fifth.
        quantity: or in this quantity.
        beyond: two names; their difference is subtracted as well.
        headline: whether the selection ``headline`` has it.
    """

    row: str | list[str]
    against: str | list[str]
    expect: Expectation
    domains: list[str] = dataclasses.field(default_factory=list)
    mean: bool = False
    quantity: str = ""
    beyond: list[str] = dataclasses.field(default_factory=list)
    headline: bool = False


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence and what it says of rows.

    Attributes:
        text: the sentence.
        source: where it is made.
        comparisons: what must hold.
        seeds: scale to the only seeds that it is judged by there, where others were used to choose
            the rows that it compares.
        development_seeds: scale to those others, of what the study runs; none of ``seeds``.
    """

    text: str
    source: str
    comparisons: list[Comparison]
    seeds: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    development_seeds: dict[str, list[int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is compared and is no score, in per cent of the row that is compared against.

    Attributes:
        measured: its name among a run's extras.
        printed: row to printed value, in whatever unit.
    """

    measured: str
    printed: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Claims:
    """The whole file.

    Attributes:
        margins: scale to column (or quantity) to margin, in its points.
        claims: short name, ``C1``, to claim.
        confidence: coverage of the intervals.
        quantities: by name.
        controls: a MoLE row to the plain LoRA of as many trainable parameters.
        baselines: by name, for each domain the row whose score it is.
    """

    margins: dict[str, dict[str, float]]
    claims: dict[str, Claim]
    confidence: float = 0.95
    quantities: dict[str, Quantity] = dataclasses.field(default_factory=dict)
    controls: dict[str, str] = dataclasses.field(default_factory=dict)
    baselines: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    def only(self, selection: Collection[str]) -> "Claims":
        """Those that are named, whole, and under ``headline`` what is so marked; all of no name.

        Raises:
            ValueError: a name that no claim has.
        """
        if not selection:
            return self
        known = [HEADLINE, *self.claims]
        for name in selection:
            if name not in known:
                raise ValueError(f"claims {name!r}: {nearest(name, known)}")
        kept = {}
        for name, claim in self.claims.items():
            marked = [one for one in claim.comparisons if one.headline and HEADLINE in selection]
            if compared := claim.comparisons if name in selection else marked:
                kept[name] = dataclasses.replace(claim, comparisons=compared)
        return dataclasses.replace(self, claims=kept)

    def rows(self) -> list[str]:
        """Names of all rows that the claims compare, in order; without their controls."""
        names = [name for claim in self.claims for name in self.rows_of(claim)]
        return list(dict.fromkeys(names))

    def rows_of(self, claim: str) -> list[str]:
        """The same of one claim, by its short name."""
        names = {
            row: None
            for comparison in self.claims[claim].comparisons
            for name in (
                *names_of(comparison.row),
                *names_of(comparison.against),
                *comparison.beyond,
            )
            for row in self.baselines.get(name, {"": name}).values()
        }
        return list(names)


def names_of(names: str | list[str]) -> list[str]:
    """One name or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def load(
    file: Path, known: Collection[str] | None = None, selection: Collection[str] = ()
) -> Claims:
    """Reads and checks a claims file.

    Args:
        file: YAML.
        known: names of all rows that there are; None leaves names unchecked.
        selection: see `Claims.only`.

    Raises:
        ValueError: what cannot be used; the message names file, key and remedy.
    """
    claims = config.load(Claims, file)
    if not 0 < claims.confidence < 1:
        raise ConfigError(
            f"{file}: confidence: {claims.confidence} is no coverage; give one such as 0.95"
        )
    for scale, columns in claims.margins.items():
        for column, margin in columns.items():
            if not 0 < margin < float("inf"):
                key = f"margins.{scale}.{column}"
                raise ConfigError(f"{file}: {key}: {margin} is no margin; give points above 0")
    for name, claim in claims.claims.items():
        if not claim.comparisons:
            raise ConfigError(f"{file}: claims.{name}.comparisons: empty; compare some rows")
        for scale, chosen_by in claim.development_seeds.items():
            if both := set(chosen_by) & set(claim.seeds.get(scale, chosen_by)):
                raise ConfigError(
                    f"{file}: claims.{name}.development_seeds.{scale}: {min(both)} chose the rows "
                    f"and would judge them; name other ones under claims.{name}.seeds.{scale}"
                )
        for place, comparison in enumerate(claim.comparisons):
            _check(comparison, f"{file}: claims.{name}.comparisons.{place}", claims)
    if known is not None:
        for key, name in _named(claims):
            if name not in known:
                raise ConfigError(f"{file}: {key}: unknown row {name!r}; {nearest(name, known)}")
    return claims.only(selection)


def _check(comparison: Comparison, key: str, claims: Claims) -> None:
    """Raises what is wrong with one comparison, whatever rows and scales there are."""
    if bool(comparison.domains) == bool(comparison.quantity):
        raise ConfigError(f"{key}: give either domains or a quantity")
    for domain in comparison.domains:
        if domain not in PAPER_COLUMNS:
            raise ConfigError(f"{key}.domains: {domain!r}; {nearest(domain, PAPER_COLUMNS)}")
    if comparison.quantity and comparison.quantity not in claims.quantities:
        remedy = nearest(comparison.quantity, claims.quantities)
        raise ConfigError(
            f"{key}.quantity: {comparison.quantity!r} is not under quantities; {remedy}"
        )
    if comparison.mean and len(comparison.domains) < 2:
        raise ConfigError(f"{key}.mean: of one domain it is no mean; name two domains at least")
    for name in names_of(comparison.against):
        if name in claims.baselines:
            lacks = [one for one in comparison.domains if one not in claims.baselines[name]]
            if not comparison.mean or lacks:
                raise ConfigError(
                    f"{key}.against: {name!r} is a baseline, which only a mean of its domains "
                    f"({', '.join(claims.baselines[name])}) is held against; set mean: true"
                )
    if not names_of(comparison.row) or not names_of(comparison.against):
        raise ConfigError(f"{key}: row and against must name at least one row each")
    if both := set(names_of(comparison.row)) & set(names_of(comparison.against)):
        raise ConfigError(f"{key}: {min(both)!r} is compared with itself; take it out of one side")
    if len(comparison.beyond) not in (0, 2):
        raise ConfigError(f"{key}.beyond: give two rows, whose difference is subtracted")
    if comparison.beyond and comparison.quantity:
        raise ConfigError(f"{key}.beyond: only scores have it; leave it out for a quantity")
    if comparison.expect in NEEDS_MARGIN:
        for scale, margins in claims.margins.items():
            wanted = [comparison.quantity] if comparison.quantity else []
            if comparison.mean:
                wanted.append(MEAN)
            elif scale == "paper":
                wanted += [c for domain in comparison.domains for c in PAPER_COLUMNS[domain]]
            for column in wanted:
                if column not in margins:
                    raise ConfigError(
                        f"{key}: {comparison.expect} in {column!r} needs a margin; "
                        f"add margins.{scale}.{column}"
                    )


def _named(claims: Claims) -> Iterator[tuple[str, str]]:
    """Where a row is named, and its name."""
    for name, claim in claims.claims.items():
        for place, comparison in enumerate(claim.comparisons):
            key = f"claims.{name}.comparisons.{place}"
            yield from ((f"{key}.row", row) for row in names_of(comparison.row))
            rows = [one for one in names_of(comparison.against) if one not in claims.baselines]
            yield from ((f"{key}.against", row) for row in rows)
            yield from ((f"{key}.beyond", row) for row in comparison.beyond)
    for row, control in claims.controls.items():
        yield from ((f"controls.{row}", name) for name in (row, control))
    for name, rows in claims.baselines.items():
        yield from ((f"baselines.{name}.{domain}", row) for domain, row in rows.items())
    for name, quantity in claims.quantities.items():
        yield from ((f"quantities.{name}.printed", row) for row in quantity.printed)
