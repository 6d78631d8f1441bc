"""The report of what ``llava-mole reproduce`` was asked for: what goes in, where it goes."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from llava_mole.files import refuse_unwritable

EXPERIMENTS = "configs/experiments"


def write_report(
    arguments: argparse.Namespace, rows, selected, seeds, scale, store, output
) -> bool:
    """Writes the report of the selected rows; False where none of them has results."""
    from llava_mole.reproduce.report import write
    from llava_mole.reproduce.runs import resolve_runs
    from llava_mole.reproduce.select import CLAIMS, seeds_of_claims
    from llava_mole.reproduce.stamp import stamp
    from llava_mole.reproduce.store import measured

    runs = resolve_runs(scale, rows, rows, seeds, output)
    found = measured(store, rows, runs)
    names = {item.row.name for item in selected}
    if not names & set(found):
        print(f"no results in {store.path} yet: nothing to report")
        return False
    folder = folder_of(arguments, scale)
    refuse_unwritable(folder / "report.md", "the report")
    experiments = Path(arguments.experiments)
    # Whoever names seeds asks for verdicts by those; headline claims have none of their own.
    given = arguments.seeds or arguments.claims
    theirs = {} if given else seeds_of_claims(experiments, scale.name, rows)
    more = {
        claim: resolve_runs(scale, rows, items, only, output)
        for claim, (items, only) in theirs.items()
    }
    own = {claim: measured(store, theirs[claim][0], judged) for claim, judged in more.items()}
    shown = {one.hash: one for one in runs if names & set(one.rows)}
    judging = {one.hash: one for judged in more.values() for one in judged}
    report = write(
        scale,
        [item.row for item in selected],
        found,
        experiments / CLAIMS,
        folder,
        stamp(
            scale,
            seeds,
            [*(judging | shown).values()],
            store,
            _command(arguments, scale, seeds),
        ),
        arguments.claims or "all",
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
    if arguments.output:
        return Path(arguments.output) / "report"
    part = arguments.table or arguments.figure or arguments.rows or arguments.all or arguments.seeds
    if scale.report and not part and not (arguments.study and arguments.claims):
        return Path(scale.report) / (arguments.claims or "")
    return Path(scale.output) / "report"


def _command(arguments: argparse.Namespace, scale, seeds: Sequence[int]) -> list[str]:
    """The command that writes the same report again, however its runs were started."""
    words = ["llava-mole", "reproduce"]
    for name in ("table", "figure", "rows"):
        values = getattr(arguments, name)
        words += [f"--{name}", *values] if values else []
    words += [f"--{name}" for name in ("all", "study") if getattr(arguments, name)]
    words += ["--claims", arguments.claims] if arguments.claims else []
    words += ["--scale", scale.name]
    words += ["--seeds", *map(str, seeds)] if seeds != scale.seeds else []
    if arguments.experiments != EXPERIMENTS:
        words += ["--experiments", arguments.experiments]
    words += ["--output", arguments.output] if arguments.output else []
    return [*words, "--report"]
