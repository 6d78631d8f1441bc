"""Which rows a command is about: tables, figures, claims, names."""

from collections.abc import Sequence
from pathlib import Path

from llava_mole.reproduce.claims import load
from llava_mole.reproduce.rows import PAPER_TABLES, RowFile, find
from llava_mole.reproduce.scales import Scale

# Figure 1's LLaVA-Mix is said to be at 295.8, which is Table 2's row 11, two epochs; row 8 is the
# same mixture for one. Figure 3 shows the routing of a LLaVA-MoLE on all three domains.
FIGURES = {
    "1": (
        "llava-1.5-1-0-0",
        "llava-doc-0-1-0",
        "llava-med-0-0-1",
        "llava-mix-1-1-1",
        "llava-mix-x2-1-1-1",
        "llava-mole-1-1-1",
    ),
    "3": ("llava-mole-1-1-1",),
}
CLAIMS = "claims.yaml"


def seeds_of_claims(
    experiments: Path, scale: str, selected: Sequence[RowFile]
) -> dict[str, tuple[list[RowFile], list[int]]]:
    """By claim, the rows and seeds that it alone is judged by.

    Args:
        experiments: the folder of the claims.
        scale: name of the scale.
        selected: rows; claims of which one row is not among them are left out.
    """
    chosen = {item.row.name: item for item in selected}
    claims = load(experiments / CLAIMS)
    found = {}
    for name, claim in claims.claims.items():
        rows = claims.rows_of(name)
        if scale in claim.seeds and all(row in chosen for row in rows):
            found[name] = [chosen[row] for row in rows], claim.seeds[scale]
    return found


def seeds_of_rows(
    experiments: Path, scale: Scale, selected: Sequence[RowFile], study: bool = False
) -> list[tuple[list[RowFile], list[int]]]:
    """Which rows run with which seeds where none are asked for, rows of the same seeds together.

    A row that claims with seeds of their own compare has those, and the ones that chose it, and no
    others. The headline's rows have the scale's, and such a claim's where all of its rows are
    selected. All others have the scale's, in the whole study ``study_seeds``.

    Args:
        experiments: the folder of the claims.
        scale: where they are run.
        selected: rows.
        study: whether they are the whole study.
    """
    claims = load(experiments / CLAIMS)
    headline = set(claims.rows("headline"))
    names = {item.row.name for item in selected}
    own: dict[str, set[int]] = {}
    for name, claim in claims.claims.items():
        if scale.name not in claim.seeds:
            continue
        rows = set(claims.rows_of(name))
        for row in rows if rows <= names else rows - headline:
            seeds = own.setdefault(row, set())
            seeds.update(claim.seeds[scale.name], claim.development_seeds.get(scale.name, ()))
    others = (study and scale.study_seeds) or scale.seeds
    found: dict[tuple[int, ...], list[RowFile]] = {}
    for item in selected:
        name = item.row.name
        usual = scale.seeds if name in headline else () if name in own else others
        seeds = {*usual, *own.get(name, ())}
        found.setdefault(tuple(sorted(seeds)), []).append(item)
    return [(items, list(seeds)) for seeds, items in found.items()]


def select(
    rows: Sequence[RowFile],
    experiments: Path,
    *,
    tables: Sequence[str] = (),
    figures: Sequence[str] = (),
    names: Sequence[str] = (),
    headline: bool = False,
    everything: bool = False,
) -> list[RowFile]:
    """The rows that are asked for, in the order of ``rows``.

    Args:
        rows: all rows.
        experiments: their folder, which has the claims too.
        tables: tables by name, with all their rows.
        figures: the paper's figures, by the rows they show.
        names: rows.
        headline: the rows that the headline claims compare.
        everything: every row there is.

    Raises:
        ValueError: an unknown table, figure or row, or nothing at all.
    """
    known = list(dict.fromkeys([*PAPER_TABLES, *(item.row.table for item in rows)]))
    for table in tables:
        if table not in known:
            raise ValueError(f"--table {table}: there are {', '.join(known)}")
    wanted = list(names)
    for figure in figures:
        if figure not in FIGURES:
            raise ValueError(f"--figure {figure}: there are {', '.join(FIGURES)}")
        wanted += FIGURES[figure]
    if headline:
        known_rows = {item.row.name for item in rows}
        wanted += load(experiments / CLAIMS, known_rows, "headline").rows("headline")
    chosen = {id(find(rows, name)) for name in wanted}
    found = [item for item in rows if everything or item.row.table in tables or id(item) in chosen]
    if not found:
        raise ValueError(
            "say what is reproduced: --table, --figure, --all, --study, --rows or --claims"
        )
    return found
