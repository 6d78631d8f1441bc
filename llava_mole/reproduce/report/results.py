"""What the report's parts ask for: a row's title, its estimate in a column, its printed value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llava_mole.reproduce import intervals
from llava_mole.reproduce.claims import Claims, Pair
from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.judge import Judgement
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
    def shown(self) -> list[str]:
        """Those, and what tables show beside them."""
        return [*self.columns, *getattr(self.scale, "shown", ())]

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
        measured = self.measured.get(name)
        if measured is None:
            return None
        scores = {s: found[column] for s, found in measured.scores.items() if column in found}
        if not scores:
            return None
        seeds = sorted(scores)
        term = (1, [scores[seed] for seed in seeds])
        return intervals.of_scores([term], seeds, self.claims.confidence)

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
