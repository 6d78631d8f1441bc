"""What the report's parts ask for: a row's title, its estimate in a column, its printed value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llava_mole.reproduce.claims import Claims
from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.judge import Judgement
from llava_mole.reproduce.pairs import Pair
from llava_mole.reproduce.sums import SUMS, Term, weighted
from llava_mole.reproduce.types import Measured, Row


class Scale(Protocol):
    """A scale, as far as a report needs to know it.

    Attributes:
        name: ``paper``, ``small`` or ``tiny``.
        columns: domain to its columns.
        label: what stands above every table and figure.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    label: str


@dataclass(frozen=True)
class Results:
    """Rows, what was measured of them, and the claims' verdicts.

    Attributes:
        scale: at which it was measured.
        rows: of the tables that are shown, in order.
        every: all rows that claims may name, with those.
        measured: by row's name.
        claims: the claims file.
        judgements: one for each of its claims.
    """

    scale: Scale
    rows: Sequence[Row]
    every: Sequence[Row]
    measured: Mapping[str, Measured]
    claims: Claims
    judgements: Sequence[Judgement]

    @property
    def comparable(self) -> bool:
        """Whether the paper's values may stand beside the measured ones."""
        return self.scale.name == "paper"

    @property
    def columns(self) -> list[str]:
        """The columns that are compared."""
        return [column for columns in self.scale.columns.values() for column in columns]

    @property
    def domains(self) -> dict[str, Sequence[str]]:
        """Every domain's columns, those beyond the scale's own last."""
        more = getattr(self.scale, "more", {})
        return {**self.scale.columns, **{name: one.columns for name, one in more.items()}}

    @property
    def shown(self) -> list[str]:
        """Those, and what tables show beside them."""
        return [*self.columns, *getattr(self.scale, "shown", ())]

    @property
    def mean_notes(self) -> list[str]:
        """What a mean over domains must say of itself: nothing, but where a column is a sum."""
        if not SUMS.keys() & set(self.columns):
            return []
        return ["In a domain's mean, All counts as its fifth, the mean of its five columns."]

    def title(self, name: str) -> str:
        """The row's title, with its name where another row has the same; an unknown row's name."""
        titles: dict[str, str] = {}
        for row in self.every:
            # A run that stands in several tables is called as in the first.
            titles.setdefault(row.name, row.title)
        title = titles.get(name, name)
        alike = sum(other == title for other in titles.values())
        return title if alike <= 1 else f"{title} ({name})"

    def estimate(self, name: str, column: str) -> Difference | None:
        """Mean over the seeds with its interval; None where nothing was measured."""
        return self.sum([(1, name, column)])

    def means(self, names: Iterable[str]) -> str:
        """What figures and intervals of these rows are: of seeds, or of a single one's images."""
        counts = {len(self.measured[name].scores) for name in names if name in self.measured}
        if counts == {1}:
            return "one seed's scores with their intervals over images"
        more = "; a row with one seed has its score and an interval over images" * (1 in counts)
        return f"means over as many seeds as the table says, with their intervals{more}"

    def sum(self, terms: Sequence[Term]) -> Difference | None:
        """A weighted sum of scores with its interval; None without a seed that all terms have."""
        return weighted(self.measured, terms, self.claims.confidence)

    def printed(self, name: str, column: str) -> float | None:
        """The paper's value, at the paper's scale only: elsewhere it compares with nothing."""
        if not self.comparable:
            return None
        return next(
            (
                row.printed[column]
                for row in self.every
                if row.name == name and column in row.printed
            ),
            None,
        )

    def compared(self, pair: Pair) -> str:
        """``A − B``, or ``(A − B) − (C − D)``."""
        text = f"{self.title(pair.row)} − {self.title(pair.against)}"
        if not pair.beyond:
            return text
        return f"({text}) − ({' − '.join(map(self.title, pair.beyond))})"
