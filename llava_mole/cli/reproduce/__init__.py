"""examples:
# what a table's rows are and cost at the paper's scale; needs no data, GPU or network
llava-mole reproduce --table 2 --scale paper --plan

# its runs as a SLURM array (or --launch hostfile, torchrun), and when they are through, its report
llava-mole reproduce --table 2 --scale paper --launch slurm
llava-mole reproduce --table 2 --scale paper --report

# every comparison of the paper on two cores; what docs/study has results of is not run again, and
# started again it goes on where it stopped
llava-mole reproduce --scale tiny --prepare
llava-mole reproduce --all --scale tiny --processes 2
llava-mole reproduce --study --scale tiny --status

# what the headline claims compare, with more seeds; or all of it again, in a place of one's own
llava-mole reproduce --claims headline --scale tiny --seeds 20 21 22 --output playground/more
llava-mole reproduce --claims headline --scale tiny --output playground/study

# or what single claims of configs/experiments/claims.yaml compare, with the seeds that judge them
llava-mole reproduce --claims C14 C15 --scale tiny --output playground/frozen

# single rows by the names of their files in configs/experiments/
llava-mole reproduce --rows llava-mix-1-1-1 llava-mole-1-1-1 --scale small

A row's file is a training config too:
CONFIG=configs/experiments/table2/llava-mole-1-2-1.yaml bash scripts/finetune_mole.sh
"""

import argparse
import sys
from pathlib import Path

from llava_mole.cli.reproduce.report import EXPERIMENTS, write_report

HELP = "reproduce the paper's tables, figures and claims, at its scale or on two cores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``reproduce``."""
    what = parser.add_argument_group("what is reproduced")
    what.add_argument(
        "--table",
        nargs="+",
        default=[],
        metavar="N",
        help="2 to 5, controls, ablations, rates, length, frozen, beyond",
    )
    what.add_argument("--figure", nargs="+", default=[], metavar="N", help="1 or 3, by their rows")
    what.add_argument("--all", action="store_true", help="Tables 2 to 5 and their figures")
    what.add_argument("--study", action="store_true", help="every row, ours included")
    what.add_argument("--rows", nargs="+", default=[], metavar="NAME", help="rows by name")
    what.add_argument(
        "--claims",
        nargs="+",
        default=[],
        metavar="NAME",
        help="the rows that claims compare: headline, or claims by name, such as C14",
    )
    what.add_argument("--scale", required=True, help="paper, small or tiny")
    what.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        help="(default: the scale's, or those of the claims that alone compare a row)",
    )
    do = parser.add_argument_group(
        "what is done with the rows that are chosen above (default: run what is left, then report)"
    )
    only = do.add_mutually_exclusive_group()
    only.add_argument("--plan", action="store_true", help="print runs, steps, samples and cost")
    only.add_argument("--status", action="store_true", help="print where each run stands")
    only.add_argument(
        "--prepare", action="store_true", help="make the data and base model of the tiny scale"
    )
    only.add_argument("--report", action="store_true", help="report what is there")
    only.add_argument(
        "--measure",
        action="store_true",
        help="of runs that a script trained: where their routers send the benchmarks' tokens, what "
        "a forward saves; the scripts of --launch call it",
    )
    only.add_argument(
        "--conflicts",
        action="store_true",
        help="measure the gradient cosines of the one row's domains before training, which the "
        "study's report holds against what mixtures lose",
    )
    do.add_argument(
        "--launch",
        choices=["local", "torchrun", "hostfile", "slurm"],
        help="local: run here, side by side; the others write a script for several GPUs "
        "(default: the scale's)",
    )
    do.add_argument("--submit", action="store_true", help="with --launch slurm: call sbatch too")
    do.add_argument("--processes", type=int, help="runs side by side (default: the scale's)")
    do.add_argument(
        "--keep-runs",
        action="store_true",
        help="keep run directories with adapter and all answers, which small scales delete",
    )
    where = parser.add_argument_group("where")
    where.add_argument(
        "--experiments",
        default=EXPERIMENTS,
        metavar="DIR",
        help="rows, scales and claims (default: %(default)s)",
    )
    where.add_argument(
        "--output",
        metavar="DIR",
        help="runs, results and report (default: output and results of the scale's file)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Plans, runs or reports; 1 where a run failed."""
    _check(arguments)
    from llava_mole.reproduce.claims import CLAIMS, load
    from llava_mole.reproduce.rows import read_rows
    from llava_mole.reproduce.runs import resolve_runs
    from llava_mole.reproduce.scales import read_scale
    from llava_mole.reproduce.select import seeds_of_rows, select
    from llava_mole.reproduce.status import collect
    from llava_mole.reproduce.status import text as status_text
    from llava_mole.reproduce.store import Store

    experiments = Path(arguments.experiments)
    rows = read_rows(experiments)
    scale = read_scale(experiments, arguments.scale)
    if arguments.prepare:
        return _prepare(experiments, scale)
    claims = load(experiments / CLAIMS, {item.row.name for item in rows})
    compared = claims.only(arguments.claims).rows() if arguments.claims else []
    selected = select(
        rows,
        tables=[*arguments.table, *(("2", "3", "4", "5") if arguments.all else ())],
        figures=arguments.figure,
        names=[*arguments.rows, *compared],
        everything=arguments.study,
    )
    if arguments.conflicts:
        return _conflicts(selected, scale)
    output = Path(arguments.output) if arguments.output else None
    left_out: dict = {}
    wanted = [(selected, arguments.seeds)]
    if not arguments.seeds:
        wanted = seeds_of_rows(
            claims, scale, selected, study=arguments.study, selection=arguments.claims
        )
    found: dict = {}
    for items, own in wanted:
        for one in resolve_runs(scale, rows, items, own, output, left_out):
            found.setdefault(one.hash, one)
    runs = list(found.values())
    if not runs:
        if left_out:
            raise ValueError("\n".join(map(str, left_out.values())))
        names = ", ".join(item.row.name for item in selected)
        raise ValueError(f"{names}: quoted as printed, or not run at scale {scale.name}")
    for reason in dict.fromkeys(why.reason for why in left_out.values()):
        names = ", ".join(name for name, why in left_out.items() if why.reason == reason)
        print(f"note: left out: {names}: {reason}", file=sys.stderr)
    store = Store(_results(scale, output), scale.name)
    for note in store.stale(runs):
        print(f"note: {note}", file=sys.stderr)
    if arguments.measure:
        return _measure(runs, scale)
    for new, refused in collect(runs, scale, store):
        print(f"results of {new.name} found in {new.folder}")
        if refused:
            print(f"note: left out: {refused}", file=sys.stderr)
    if arguments.plan:
        _plan(runs, scale, store, arguments.processes or scale.processes)
        if scale.put_on is None:
            from llava_mole.cli.reproduce.start import print_commands

            print_commands(runs, scale, experiments, output)
        return 0
    if arguments.status:
        print(status_text(runs, store))
        return 0
    status = 0
    if not arguments.report:
        from llava_mole.cli.reproduce import start

        _refuse_unjudged(arguments, rows, scale)
        how = arguments.launch or scale.launch
        left = [one for one in runs if store.get(one) is None]
        if how != "local":
            return start.by_script(arguments, left, scale, how)
        status = start.here(arguments, runs, scale, store)
    reported = write_report(arguments, claims, rows, selected, runs, scale, store, output)
    return status or int(arguments.report and not reported)


def _check(arguments: argparse.Namespace) -> None:
    """Raises ValueError where options don't go together; leaves out seeds that are named again."""
    arguments.seeds = arguments.seeds and list(dict.fromkeys(arguments.seeds))
    if arguments.processes is not None and arguments.processes < 1:
        raise ValueError(f"--processes is {arguments.processes}; it must be >= 1")
    if arguments.submit and arguments.launch != "slurm":
        raise ValueError("--submit goes with --launch slurm")
    for name in ("plan", "status", "report", "measure", "prepare", "conflicts"):
        if arguments.launch and getattr(arguments, name):
            raise ValueError(f"--launch starts runs; leave it or --{name} out")
    for name in ("prepare", "conflicts"):
        if arguments.output and getattr(arguments, name):
            raise ValueError(f"--{name} writes where the scale's file says; leave --output out")


def _refuse_unjudged(arguments: argparse.Namespace, rows, scale) -> None:
    """Raises ValueError for what the report would stumble over at the end of all runs."""
    from llava_mole.reproduce.claims import CLAIMS
    from llava_mole.reproduce.report import judged

    file = Path(arguments.experiments) / CLAIMS
    judged(scale, [item.row for item in rows], {}, file, arguments.claims)


def _prepare(experiments: Path, scale) -> int:
    if scale.name != "tiny":
        raise ValueError(f"--prepare is for the tiny scale; for this one: {scale.prepare}")
    from llava_mole.reproduce.tiny.prepare import prepare

    prepare(experiments, scale)
    return 0


def _measure(runs, scale) -> int:
    from llava_mole.reproduce.measure import measure_launched

    measured = measure_launched(runs, scale)
    print(
        f"{len(measured)} of {len(runs)} runs measured now; the others were before, or need not be"
    )
    return 0


def _conflicts(selected, scale) -> int:
    if len(selected) != 1 or selected[0].row.plain is None:
        raise ValueError(
            "--conflicts measures the domains of one plain LoRA's mixture; name it, such as "
            "--rows llava-mix-1-1-1"
        )
    if scale.conflicts is None:
        raise ValueError(f"scale {scale.name} names no file for cosines; give it a key conflicts")
    from llava_mole.reproduce.cosines import measure_cosines

    measure_cosines(scale, selected[0], Path(scale.conflicts))
    print(f"cosines: {scale.conflicts}")
    return 0


def _results(scale, output: Path | None) -> Path:
    if output is not None:
        return output / "results.jsonl"
    return Path(scale.results or Path(scale.output) / "results.jsonl")


def _plan(runs, scale, store, processes: int) -> None:
    from llava_mole.reproduce.plan import plan, text

    print(text(plan(runs, scale, store), scale, processes))
