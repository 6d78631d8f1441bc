"""A claim's rows with the seeds that it alone is judged by, which no other table shows."""

from collections.abc import Mapping
from dataclasses import replace

from llava_mole.reproduce.claims import names_of
from llava_mole.reproduce.judge import Judgement
from llava_mole.reproduce.report.cells import (
    mean_cell,
    parameters_cell,
    seeds_cell,
    trained_parameters,
)
from llava_mole.reproduce.report.content import Cell, Table
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.routers import information, information_cell
from llava_mole.reproduce.sums import Term, mean_terms
from llava_mole.reproduce.types import Measured


def own_seeds_table(
    results: Results, judgement: Judgement, measured: Mapping[str, Measured]
) -> Table:
    """One line a row or baseline of the claim: its scores, and what they are of.

    Args:
        results: the report's.
        judgement: of the claim.
        measured: by row's name, with the claim's own seeds.
    """
    here = replace(results, measured=measured)
    header = ["row", "seeds", *results.columns, "mean of domains", "routing, bits", "parameters"]
    rows = []
    for name in _names(judgement):
        terms = mean_terms(here.scale.columns, here.claims.baselines.get(name, name))
        mean = here.sum(terms)
        cells = [Cell(here.title(name)), seeds_cell(mean)]
        cells += [mean_cell(here.sum(_only(terms, column))) for column in here.columns]
        cells += [mean_cell(mean), information_cell(information(here, name))]
        rows.append([*cells, parameters_cell(trained_parameters(here, name))])
    notes = [
        "Means over the seeds that the claim is judged by, ± half of their interval; of a "
        "baseline, each domain from the row that is trained on it alone. Routing is the mutual "
        "information of domain and expert, in bits a token.",
        *results.mean_notes,
    ]
    title = f"{judgement.name}, the rows' scores"
    return Table(f"scores-{judgement.name}", title, header, rows, notes)


def _names(judgement: Judgement) -> list[str]:
    """What the claim compares with first, then what it compares."""
    comparisons = judgement.claim.comparisons
    against = [name for one in comparisons for name in names_of(one.against)]
    rows = [name for one in comparisons for name in names_of(one.row)]
    return list(dict.fromkeys([*against, *rows]))


def _only(terms: list[Term], column: str) -> list[Term]:
    """One column's score out of the terms of a mean."""
    return [(1, row, other) for _, row, other in terms if other == column]
