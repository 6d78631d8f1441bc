"""Which rows a command is about: tables, figures, claims, names."""

from collections.abc import Collection, Mapping, Sequence

from llava_mole.reproduce.claims import HEADLINE, Claims
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


def seeds_of_claims(
    claims: Claims, scale: str, selected: Sequence[RowFile]
) -> dict[str, tuple[list[RowFile], list[int]]]:
    """By claim, the rows and seeds that it alone is judged by.

    Args:
        claims: those that are asked for.
        scale: name of the scale.
        selected: rows; claims of which one row is not among them are left out.
    """
    chosen = {item.row.name: item for item in selected}
    found = {}
    for name, claim in claims.claims.items():
        rows = claims.rows_of(name)
        if scale in claim.seeds and all(row in chosen for row in rows):
            found[name] = [chosen[row] for row in rows], claim.seeds[scale]
    return found


def seeds_shown(
    claims: Claims, scale: Scale, rows: Sequence[RowFile]
) -> list[tuple[list[RowFile], list[int]]]:
    """The seeds that a report shows rows with, rows of the same seeds together.

    All have the scale's; a row that only claims with seeds of their own compare has those and the
    ones that chose it as well.
    """
    apart = _apart(claims, scale.name)
    seeds = {item.row.name: {*scale.seeds, *apart.get(item.row.name, ())} for item in rows}
    return _together(rows, seeds)


def seeds_of_rows(
    claims: Claims,
    scale: Scale,
    selected: Sequence[RowFile],
    *,
    study: bool = False,
    selection: Sequence[str] = (),
) -> list[tuple[list[RowFile], list[int]]]:
    """Which rows run with which seeds where none are asked for, rows of the same seeds together.

    Of claims that are asked for by name, rows have the seeds that these judge them by. Otherwise
    a row that only claims with seeds of their own compare has those, and the ones that chose it.
    All others have the scale's, in the whole study ``study_seeds`` unless the headline compares
    them, and those of each claim with its own of which all rows are selected.

    Args:
        claims: all of them.
        scale: where they are run.
        selected: rows.
        study: whether they are the whole study.
        selection: of claims, by which rows were selected too; empty where by none.
    """
    asked = claims.only(selection)
    names = {item.row.name for item in selected}
    seeds: dict[str, set[int]] = {name: set() for name in names}
    for name, claim in asked.claims.items():
        rows = set(asked.rows_of(name))
        own = {*claim.seeds.get(scale.name, scale.seeds if selection else ())}
        for row in rows if rows <= names else ():
            seeds[row] |= own
    headline = set(claims.only([HEADLINE]).rows())
    others = (study and scale.study_seeds) or scale.seeds
    apart = _apart(claims, scale.name)
    for name, own in seeds.items():
        if not (selection and own):
            own.update(apart.get(name, scale.seeds if name in headline else others))
    return _together(selected, seeds)


def _apart(claims: Claims, scale: str) -> dict[str, set[int]]:
    """The rows that only claims with seeds of their own compare, and all seeds these name."""
    own: dict[str, set[int]] = {}
    shared: set[str] = set()
    for name, claim in claims.claims.items():
        if scale not in claim.seeds:
            shared.update(claims.rows_of(name))
            continue
        for row in claims.rows_of(name):
            seeds = own.setdefault(row, set())
            seeds.update(claim.seeds[scale], claim.development_seeds.get(scale, ()))
    return {row: seeds for row, seeds in own.items() if row not in shared}


def _together(
    rows: Sequence[RowFile], seeds: Mapping[str, Collection[int]]
) -> list[tuple[list[RowFile], list[int]]]:
    found: dict[tuple[int, ...], list[RowFile]] = {}
    for item in rows:
        found.setdefault(tuple(sorted(seeds[item.row.name])), []).append(item)
    return [(items, list(own)) for own, items in found.items()]


def select(
    rows: Sequence[RowFile],
    *,
    tables: Sequence[str] = (),
    figures: Sequence[str] = (),
    names: Sequence[str] = (),
    everything: bool = False,
) -> list[RowFile]:
    """The rows that are asked for, in the order of ``rows``.

    Args:
        rows: all rows.
        tables: tables by name, with all their rows.
        figures: the paper's figures, by the rows they show.
        names: rows.
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
    chosen = {id(find(rows, name)) for name in wanted}
    found = [item for item in rows if everything or item.row.table in tables or id(item) in chosen]
    if not found:
        raise ValueError(
            "say what is reproduced: --table, --figure, --all, --study, --rows or --claims"
        )
    return found
