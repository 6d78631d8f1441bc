"""What the paper leaves open: another stage 1, and six domains with more experts."""

from collections.abc import Iterator, Mapping, Sequence

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
    information,
    information_cell,
    smallest,
)
from llava_mole.reproduce.report.singles import SINGLES
from llava_mole.reproduce.sums import Term, mean_terms

FOLDER = "beyond"
# ROW-stage1-WHAT is ROW-1-1-1 after another stage 1.
_STAGE_1, _USUAL = "-stage1-", "-1-1-1"
_MIX = "llava-mix-six"
_SIX = (_MIX, "llava-mole-six")
_LOSS = "stage_1_loss"


def beyond_tables(results: Results) -> Iterator[Table]:
    """Those of the rows that are shown."""
    names = [row.name for row in results.rows if row.table == FOLDER]
    if others := [name for name in names if _STAGE_1 in name]:
        yield _stage_1(results, others)
    if six := [name for name in names if name.startswith(_SIX)]:
        yield _six_domains(results, six)


def in_beyond_tables(name: str) -> bool:
    """Whether one of these tables has the row."""
    return _STAGE_1 in name or name.startswith(_SIX) or name in SINGLES.values()


def _stage_1(results: Results, names: Sequence[str]) -> Table:
    usual = {name: name.partition(_STAGE_1)[0] + _USUAL for name in names}
    header = ["row", "stage 1's loss", "seeds", *results.scale.columns, "mean of domains"]
    header += ["less the usual stage 1's", "parameters"]
    rows = []
    for name in [*dict.fromkeys(usual.values()), *names]:
        mean = results.sum(mean_terms(results.scale.columns, name))
        loss = _loss(results, name, own=name in usual)
        before = usual.get(name)
        cells = [Cell(results.title(name)), _plain(loss, 3), seeds_cell(mean)]
        cells += _domains(results, results.scale.columns, name)
        cells.append(mean_cell(mean))
        cells.append(difference_cell(before and _more(results, name, before)))
        rows.append([*cells, parameters_cell(trained_parameters(results, name))])
    notes = [
        "One stage 1 is shared by all seeds of its rows, so the intervals know nothing of how "
        "another one would have come out. Its loss is the cross-entropy of its last steps, in nats "
        "a token, on plain answers in all domains.",
        *_paired(results, "the same row's after the usual stage 1"),
    ]
    return _noted(results, Table("table-stage-1", "Stage 1", header, rows, notes), names)


def _six_domains(results: Results, names: Sequence[str]) -> Table:
    columns = results.domains
    singles = mean_terms(columns, SINGLES)
    header = ["row", "seeds", *columns, "mean of domains", "less one domain each"]
    header += [f"less {results.title(_MIX)}", "routing, bits", "least used expert, %"]
    header += ["parameters"]
    mean = results.sum(singles)
    first = [Cell("one domain each, plain LoRA"), seeds_cell(mean)]
    first += [
        mean_cell(results.sum(_of(singles, names_of, len(columns))))
        for names_of in columns.values()
    ]
    rows = [[*first, mean_cell(mean), *[Cell(NOTHING)] * 5]]
    for name in sorted(names, key=_place):
        mean = results.sum(mean_terms(columns, name))
        cells = [Cell(results.title(name)), seeds_cell(mean), *_domains(results, columns, name)]
        cells.append(mean_cell(mean))
        less = [(-weight, row, column) for weight, row, column in singles]
        cells.append(difference_cell(results.sum([*mean_terms(columns, name), *less])))
        against = None if name == _MIX else _more(results, name, _MIX, columns)
        cells += [difference_cell(against), information_cell(information(results, name))]
        least = smallest(results, name)
        cells.append(
            Cell(NOTHING)
            if least is None
            else Cell(number(least.mean, 1), (f"even {number(least.even, 1)}",), value=least.mean)
        )
        rows.append([*cells, parameters_cell(trained_parameters(results, name))])
    notes = [
        "Six domains: three image sources, each asked in full and in short, with a code of its own "
        "each time. The first line is six runs, each on the column's domain alone; a mixture shows "
        "every domain as often.",
        *_paired(results, "the other's"),
        INFORMATION_NOTE,
    ]
    return _noted(results, Table("table-six", "Six domains", header, rows, notes), names)


def _place(name: str) -> tuple[bool, int]:
    """Plain LoRA, its equals and MoLE in turn, by K."""
    experts = name.rpartition("-k")[2]
    return name.startswith("llava-mole"), int(experts) if experts.isdigit() else 0


def _of(terms: Sequence[Term], columns: Sequence[str], factor: float = 1) -> list[Term]:
    return [(factor * weight, row, column) for weight, row, column in terms if column in columns]


def _domains(results: Results, columns: Mapping[str, Sequence[str]], name: str) -> list[Cell]:
    """A row's mean in each domain."""
    return [
        mean_cell(results.sum(mean_terms({domain: names}, name)))
        for domain, names in columns.items()
    ]


def _more(
    results: Results,
    name: str,
    against: str,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> Difference | None:
    columns = columns or results.scale.columns
    return results.sum([*mean_terms(columns, name), *mean_terms(columns, against, -1)])


def _loss(results: Results, name: str, own: bool) -> float | None:
    """A row's stage 1's loss; the usual one is every row's that has none of its own."""
    names = [name] if own else [one for one in results.measured if _STAGE_1 not in one]
    for one in names:
        found = results.measured.get(one)
        for extras in found.extras.values() if found else ():
            if _LOSS in extras:
                return extras[_LOSS]
    return None


def _plain(value: float | None, digits: int) -> Cell:
    return Cell(NOTHING) if value is None else Cell(number(value, digits), value=value)


def _paired(results: Results, what: str) -> list[str]:
    level = f"{100 * results.claims.confidence:g} %"
    scores = (
        f"Scores are means over each row's own seeds, ± half of the {level} interval. Differences "
        f"are of the domains' mean less {what}, paired over common seeds."
    )
    return [scores, *results.mean_notes]


def _noted(results: Results, table: Table, names: Sequence[str]) -> Table:
    missing = [results.title(name) for name in names if name not in results.measured]
    more = [f"Not measured: {listed(missing)}."] if missing else []
    return Table(table.name, table.title, table.header, table.rows, [*table.notes, *more])
