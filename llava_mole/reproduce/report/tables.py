"""The paper's tables, and ours, as measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llava_mole.reproduce.report.ablations import FOLDER, ablations_table
from llava_mole.reproduce.report.beyond import FOLDER as BEYOND
from llava_mole.reproduce.report.beyond import beyond_tables, in_beyond_tables
from llava_mole.reproduce.report.content import (
    NOTHING,
    Cell,
    Table,
    interval,
    listed,
    number,
    signed,
)
from llava_mole.reproduce.report.notes import TABLES
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.routers import (
    INFORMATION,
    INFORMATION_NOTE,
    KINDS,
    information,
    information_cell,
)
from llava_mole.reproduce.types import Row


def tables(results: Results) -> Iterator[Table]:
    """One table for each that the rows are of, in their order; then what the runs cost."""
    for table in dict.fromkeys(row.table for row in results.rows):
        if table == FOLDER and (ours := ablations_table(results)):
            yield ours
            continue
        rows = [row for row in results.rows if row.table == table]
        if table == BEYOND:
            yield from beyond_tables(results)
            rows = [row for row in rows if not in_beyond_tables(row.name)]
        if rows:
            yield _scores(results, table, rows)
    if costs := _costs(results):
        yield costs


def stamp_table(stamp: Mapping[str, Any]) -> Table:
    """Whatever the report was made of: hashes, seeds, versions, command."""
    rows = [(Cell(name), Cell(value)) for name, value in _flat(stamp)]
    return Table("stamp", "Made of", ["", "value"], rows, text=2)


def _scores(results: Results, table: str, rows: Sequence[Row]) -> Table:
    title = f"Table {table}" if table.isdigit() else table.replace("-", " ").capitalize()
    level = f"{100 * results.claims.confidence:g} %"
    means = results.means(row.name for row in rows)
    notes = [f"{means[0].upper()}{means[1:]} ({level}) below."]
    if results.comparable:
        notes[0] += (
            " Then the paper's value, one run's and without interval, and the difference from it."
        )
        notes += TABLES.get(table, ())
    quoted = [_number(row) for row in rows if row.kind == "quoted"]
    if quoted:
        notes.append(f"Quoted as printed, never measured: {listed(quoted)}.")
    missing = [
        results.title(row.name)
        for row in rows
        if row.kind != "quoted" and not any(_estimates(results, row))
    ]
    if missing:
        notes.append(f"Not measured: {listed(missing)}.")
    partly = [
        f"{results.title(row.name)} ({listed(lacking)})"
        for row in rows
        if any(_estimates(results, row))
        and (lacking := [c for c in results.columns if results.estimate(row.name, c) is None])
    ]
    if partly:
        notes.append(f"Measured without some columns: {listed(partly)}.")
    routed = [information(results, row.name) for row in rows]
    if any(routed):
        notes.append(INFORMATION_NOTE)
    titles = [row.title for row in rows]
    lines = [
        [
            Cell("" if row.number is None else str(row.number), value=row.number),
            Cell(row.title if titles.count(row.title) < 2 else f"{row.title} ({row.name})"),
            Cell(_seeds(results, row)),
            *(_score(results, row, column) for column in results.shown),
            *([information_cell(bits)] if any(routed) else []),
        ]
        for row, bits in zip(rows, routed, strict=True)
    ]
    header = ["#", "row", "seeds", *results.shown, *(["routing, bits"] if any(routed) else [])]
    return Table(f"table-{table}", title, header, lines, notes, 2)


def _score(results: Results, row: Row, column: str) -> Cell:
    estimate, printed = results.estimate(row.name, column), None
    if results.comparable:
        printed = row.printed.get(column)
    if printed is None:
        below = ()
    elif estimate is None:
        below = (f"paper {float(printed)}",)
    else:
        below = (f"paper {float(printed)} ({signed(estimate.value - printed)})",)
    if estimate is None:
        return Cell(NOTHING, below)
    own = interval(estimate.low, estimate.high)
    return Cell(number(estimate.value), (own, *below), value=estimate.value)


def _seeds(results: Results, row: Row) -> str:
    counts = sorted({len(estimate.seeds) for estimate in _estimates(results, row) if estimate})
    return "–".join(dict.fromkeys(map(str, (counts[0], counts[-1])))) if counts else NOTHING


def _estimates(results: Results, row: Row) -> list:
    return [results.estimate(row.name, column) for column in results.columns]


def _number(row: Row) -> str:
    return row.title if row.number is None else f"{row.title} (row {row.number})"


def _costs(results: Results) -> Table | None:
    """Mean of the runs' other figures; None without any."""
    found: dict[str, Mapping[str, float]] = {}
    for row in results.rows:
        measured = results.measured.get(row.name)
        if measured is None or row.name in found:
            continue
        names = dict.fromkeys(name for extras in measured.extras.values() for name in extras)
        # They cost nothing, and stand beside the scores.
        for name in (INFORMATION, KINDS):
            names.pop(name, None)
        figures = {
            name: [extras[name] for extras in measured.extras.values() if name in extras]
            for name in names
        }
        if figures:
            found[row.name] = {name: sum(v) / len(v) for name, v in figures.items()}
    if not found:
        return None
    columns = list(dict.fromkeys(name for figures in found.values() for name in figures))
    lines = [
        [
            Cell(results.title(name)),
            *(
                Cell(_figure(figures[column]), value=figures[column])
                if column in figures
                else Cell(NOTHING)
                for column in columns
            ),
        ]
        for name, figures in found.items()
    ]
    header = ["row", *(column.replace("_", " ") for column in columns)]
    return Table("cost", "What the runs took", header, lines, ["Means over the seeds."])


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted names, lists as one line."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, (list, tuple, set)):
            yield name, ", ".join(map(str, value))
        else:
            yield name, str(value)
