"""A report before it is Markdown, HTML or LaTeX: headings, tables, figures, as plain text."""

from collections.abc import Sequence
from dataclasses import dataclass, field

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what stands in it.
        below: smaller lines under it.
        tone: ``good``, ``bad``, ``open`` or none: how a verdict is coloured.
        value: what a column is sorted by, if not its text.
    """

    text: str
    below: tuple[str, ...] = ()
    tone: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table with what must be known beside it.

    Attributes:
        name: of letters, digits and dashes; names a place in the page and in LaTeX.
        title: above it.
        header: of each column.
        rows: cells, as many as there are columns.
        notes: sentences below it.
        text: columns from the left that hold words; the others hold numbers.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    text: int = 1


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        name: of its file, without suffix.
        title: above it.
        caption: what it shows and how to read it.
        png: the file's content.
    """

    name: str
    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Report:
    """All of it, from top to bottom.

    Attributes:
        title: heading.
        label: the scale's; it stands above every table and figure. Empty for none.
        facts: name and value pairs at a glance.
        notes: paragraphs that a reader must know first.
        parts: tables and figures.
    """

    title: str
    label: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    parts: Sequence[Table | Figure] = field(default_factory=tuple)


def number(value: float, digits: int = 2) -> str:
    """``−1.30``, with a minus sign and never ``−0.00``."""
    text = f"{value:.{digits}f}"
    if not text.strip("-0."):
        text = text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """``+0.80``; 0 has no sign."""
    text = number(value, digits)
    return text if text[0] == "−" or not text.strip("0.") else f"+{text}"


def interval(low: float, high: float, sign: bool = False) -> str:
    """``[1.20, 3.40]``."""
    shown = signed if sign else number
    return f"[{shown(low)}, {shown(high)}]"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``; ``a, b; c, d; and e`` where names have commas of their own."""
    if len(names) < 2:
        return "".join(names)
    if any(", " in name for name in names):
        return "; ".join([*names[:-1], f"and {names[-1]}"])
    return " and ".join([", ".join(names[:-1]), names[-1]])
