"""The open questions' ablations beside the row that they change: scores, routers, cost."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.report.cells import (
    difference_cell,
    mean_cell,
    parameters_cell,
    seeds_cell,
    trained_parameters,
)
from llava_mole.reproduce.report.content import (
    NOTHING,
    Cell,
    Table,
    listed,
    number,
)
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.routers import (
    INFORMATION_NOTE,
    KINDS,
    KINDS_NOTE,
    Smallest,
    information,
    information_cell,
    smallest,
)
from llava_mole.reproduce.sums import mean_terms

FOLDER = "ablations"
# What every ablation changes one thing of, the plain LoRA of as many parameters, the same rank's.
MOLE, EQUAL, PLAIN = "llava-mole-1-1-1", "llava-mix-equal-1-1-1", "llava-mix-1-1-1"


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        name: the row's.
        domains: domain to its score: mean over its columns, then over seeds.
        mean: the domains' mean, over seeds.
        against: what it has more than LLaVA-MoLE[1,1,1], over the seeds that both have.
        information: mutual information of benchmark and expert, bits above chance.
        kinds: of a token's kind and its expert, bits.
        smallest: the least used expert's share.
        seconds: training time as a multiple of LLaVA-Mix[1,1,1]'s, median over common seeds.
        parameters: that were trained.
    """

    name: str
    domains: Mapping[str, Difference | None]
    mean: Difference | None
    against: Difference | None
    information: Difference | None
    kinds: Difference | None
    smallest: Smallest | None
    seconds: float | None
    parameters: float | None


def ablations(results: Results) -> list[Line]:
    """The references, then the ablations in their order; empty where no ablation is shown."""
    names = [row.name for row in results.rows if row.table == FOLDER]
    shown = dict.fromkeys([MOLE, EQUAL, PLAIN, *names]) if names else ()
    return [_line(results, name) for name in shown]


def ablations_table(results: Results) -> Table | None:
    """The lines as a table; None where no ablation is shown."""
    lines = ablations(results)
    if not lines:
        return None
    mole, plain = results.title(MOLE), results.title(PLAIN)
    level = f"{100 * results.claims.confidence:g} %"
    notes = [
        f"Means over each row's own seeds, ± half of the {level} interval. The difference is of "
        f"the domains' mean, paired over the seeds that the row and {mole} have in common, with "
        "its interval; intervals are per row: of many rows, some exclude 0 by chance.",
        *results.mean_notes,
        f"{INFORMATION_NOTE} {KINDS_NOTE}",
        "Least used expert: its share of the benchmarks' tokens in per cent, mean over layers and "
        "seeds; below it the lowest of any layer and seed, and what an even load is. Near 0 an "
        "expert is dying. Result lines of deep models keep some of the layers.",
        f"Training time is a multiple of {plain}'s, median over common seeds. Runs were measured "
        "beside other runs on the same cores: read it as a rough figure.",
    ]
    if missing := [results.title(line.name) for line in lines if line.mean is None]:
        notes.append(f"Not measured: {listed(missing)}.")
    header = [
        "row",
        "seeds",
        *results.scale.columns,
        "mean of domains",
        f"less {mole}",
        "routing, bits",
        "kinds, bits",
        "least used expert, %",
        "training time",
        "parameters",
    ]
    rows = [list(_cells(results, line)) for line in lines]
    return Table(f"table-{FOLDER}", "Ablations: the open questions", header, rows, notes)


def as_json(line: Line) -> dict[str, Any]:
    """A line as a mapping, its `Difference` values as they are."""
    values = {key: getattr(line, key) for key in line.__dataclass_fields__}
    return {**values, "smallest": asdict(line.smallest) if line.smallest else None}


def _line(results: Results, name: str) -> Line:
    columns = results.scale.columns
    reference = None if name == MOLE else MOLE
    return Line(
        name,
        {domain: _estimate(results, {domain: columns[domain]}, name) for domain in columns},
        _estimate(results, columns, name),
        _estimate(results, columns, name, reference) if reference else None,
        information(results, name),
        information(results, name, KINDS),
        smallest(results, name),
        _ratio(results, name, "seconds", PLAIN),
        trained_parameters(results, name),
    )


def _estimate(
    results: Results, columns: Mapping[str, Sequence[str]], name: str, against: str | None = None
) -> Difference | None:
    """Mean of the domains' means over seeds, of one row or of one less another."""
    terms = mean_terms(columns, name)
    if against is not None:
        terms += mean_terms(columns, against, -1)
    return results.sum(terms)


def _ratio(results: Results, name: str, figure: str, against: str) -> float | None:
    own, other = results.measured.get(name), results.measured.get(against)
    if own is None or other is None:
        return None
    ratios = [
        extras[figure] / other.extras[seed][figure]
        for seed, extras in own.extras.items()
        if extras.get(figure) and other.extras.get(seed, {}).get(figure)
    ]
    return statistics.median(ratios) if ratios else None


def _cells(results: Results, line: Line) -> Iterator[Cell]:
    yield Cell(results.title(line.name))
    yield seeds_cell(line.mean)
    for found in (*line.domains.values(), line.mean):
        yield mean_cell(found)
    yield difference_cell(line.against)
    yield information_cell(line.information)
    yield information_cell(line.kinds)
    if (least := line.smallest) is None:
        yield Cell(NOTHING)
    else:
        below = (f"lowest {number(least.lowest, 1)}, even {number(least.even, 1)}",)
        yield Cell(number(least.mean, 1), below, value=least.mean)
    yield Cell(NOTHING if line.seconds is None else f"×{number(line.seconds)}", value=line.seconds)
    yield parameters_cell(line.parameters)
