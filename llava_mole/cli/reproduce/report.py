"""The report of what ``llava-mole reproduce`` was asked for: what goes in, where it goes."""

import argparse
from pathlib import Path

from llava_mole.files import refuse_unwritable

EXPERIMENTS = "configs/experiments"


def write_report(
    arguments: argparse.Namespace, claims, rows, selected, runs, scale, store, output
) -> bool:
    """Writes the report of the selected rows; False where none of them has results.

    Args:
        arguments: of the command line.
        claims: all of them.
        rows: all rows.
        selected: those that are shown.
        runs: what the command is about, done or not.
        scale: of the runs.
        store: has their results.
        output: folder that they go to; None for the scale's.
    """
    from llava_mole.reproduce.claims import CLAIMS
    from llava_mole.reproduce.report import write
    from llava_mole.reproduce.runs import resolve_runs
    from llava_mole.reproduce.select import seeds_of_claims, seeds_shown
    from llava_mole.reproduce.stamp import stamp
    from llava_mole.reproduce.store import measured

    # Whoever names seeds asks for figures and verdicts by those.
    shown, theirs = [(rows, arguments.seeds)], {}
    if not arguments.seeds:
        shown = seeds_shown(claims, scale, rows)
        theirs = seeds_of_claims(claims.only(arguments.claims), scale.name, rows)
    names = {item.row.name for item in selected}
    used = {one.hash: one for one in runs}
    found, own = {}, {}
    for items, seeds in shown:
        resolved = resolve_runs(scale, rows, items, seeds, output)
        found |= measured(store, items, resolved)
        done = (one for one in resolved if names & set(one.rows) and store.get(one))
        used |= {one.hash: one for one in done}
    for claim, (items, seeds) in theirs.items():
        judging = resolve_runs(scale, rows, items, seeds, output)
        own[claim] = measured(store, items, judging)
        used |= {one.hash: one for one in judging if store.get(one)}
    if not names & set(found):
        print(f"no results in {store.path} yet: nothing to report")
        return False
    folder = folder_of(arguments, scale)
    refuse_unwritable(folder / "report.md", "the report")
    report = write(
        scale,
        [item.row for item in selected],
        found,
        Path(arguments.experiments) / CLAIMS,
        folder,
        stamp(scale, [*used.values()], store, _command(arguments, scale)),
        arguments.claims,
        _cosines(arguments, scale),
        own,
    )
    print(f"report: {report}")
    return True


def _cosines(arguments: argparse.Namespace, scale) -> list:
    """What was measured before training; parts' reports have too few mixtures for it."""
    if not arguments.study or scale.conflicts is None:
        return []
    from llava_mole.reproduce.cosines import read_cosines

    return read_cosines(Path(scale.conflicts), scale.name)


def folder_of(arguments: argparse.Namespace, scale) -> Path:
    """Where the report goes: a part's never into the place of the whole study's, or headline's."""
    from llava_mole.reproduce.claims import HEADLINE

    if arguments.output:
        return Path(arguments.output) / "report"
    part = arguments.table or arguments.figure or arguments.rows or arguments.all or arguments.seeds
    whole = [arguments.study, arguments.claims] in ([True, []], [False, [HEADLINE]])
    if scale.report and whole and not part:
        return Path(scale.report).joinpath(*arguments.claims)
    return Path(scale.output) / "report"


def _command(arguments: argparse.Namespace, scale) -> list[str]:
    """The command that writes the same report again, however its runs were started."""
    words = ["llava-mole", "reproduce"]
    for name in ("table", "figure", "rows", "claims"):
        values = getattr(arguments, name)
        words += [f"--{name}", *values] if values else []
    words += [f"--{name}" for name in ("all", "study") if getattr(arguments, name)]
    words += ["--scale", scale.name]
    words += ["--seeds", *map(str, arguments.seeds)] if arguments.seeds else []
    if arguments.experiments != EXPERIMENTS:
        words += ["--experiments", arguments.experiments]
    words += ["--output", arguments.output] if arguments.output else []
    return [*words, "--report"]
