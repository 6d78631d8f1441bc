"""What a benchmark reports: measured values beside what is wanted, as a table."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        name: what was measured.
        value: the measurement, in ``unit``.
        unit: its unit.
        target: what is wanted; None where the value only explains another one.
        most: whether ``target`` is an upper bound.
        note: how it was measured, where the name does not say.
        quartiles: lower quartile, median and upper quartile, of a value that is a median.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    most: bool = True
    note: str = ""
    quartiles: tuple[float, float, float] | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.most else self.value >= self.target

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "met": self.met}


def table(figures: Sequence[Figure]) -> str:
    """The figures as text, each with its target and whether it was met."""
    rows = [("figure", "measured", "target", "met", "")]
    for item in figures:
        bound = "" if item.target is None else ("<= " if item.most else ">= ")
        target = "" if item.target is None else f"{bound}{_number(item.target)} {item.unit}"
        met = {None: "", True: "yes", False: "NO"}[item.met]
        rows.append((item.name, f"{_number(item.value)} {item.unit}", target, met, item.note))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                row[1].rjust(widths[1]),
                row[2].rjust(widths[2]),
                row[3].ljust(widths[3]),
                row[4],
            ]
        ).rstrip()
        for row in rows
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def say(text: str) -> None:
    """A line of progress, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
