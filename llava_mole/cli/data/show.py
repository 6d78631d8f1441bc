"""examples:
# one sample of a run's mixture as its model sees it, drawn by chance
llava-mole data show --config configs/quickstart_finetune.yaml --dataset general --random

# the record that a report of 'data check' names, with everything on one page for the browser
llava-mole data show train.jsonl --config run.yaml --line 17 --html sample.html
"""

import argparse
import json
import os
import random
import shutil
import sys
from typing import Any

from llava_mole.cli.arguments import add_data, check_data, run_config

HELP = "show one sample as the model sees it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``show``."""
    add_data(parser, "run config whose tokenizer, template and image size count", True)
    parser.add_argument("--dataset", help="without FILE: which data set of the config")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--index", type=int, help="the record at this position, from 0 (default)")
    which.add_argument("--id", help="the first record of this id")
    which.add_argument("--line", help="the record of this line, N or FILE:N as reports name it")
    which.add_argument("--source", help="the first record of this source")
    which.add_argument("--random", action="store_true", help="any, by --seed")
    parser.add_argument("--seed", type=int, help="of --random (default: another each time)")
    parser.add_argument("--html", metavar="FILE", help="write a page for the browser as well")
    parser.add_argument(
        "--color",
        choices=["auto", "always", "never"],
        default="auto",
        help="auto: on a terminal, unless NO_COLOR is set",
    )


def run(arguments: argparse.Namespace) -> int:
    """Shows the sample; 1 if it can't be trained on."""
    from llava_mole.analysis import sample, sample_page, sample_text
    from llava_mole.data.prepared.recordset import Problem
    from llava_mole.model.processor import build_processor
    from llava_mole.train.encoder import encoder_for

    if arguments.seed is not None and not arguments.random:
        raise ValueError("data show: --seed goes with --random")
    check_data(arguments, "data show")
    config = run_config(arguments)
    records = _open(arguments, config)
    found = _find(records, arguments)
    if isinstance(found, Problem):
        view = sample.look_at_problem(found)
    else:
        processor = build_processor(config.model)
        encoder = encoder_for(config.model, processor, config.data.overlong)
        view = sample.look(records, found, encoder, processor.image_processor)
    colour = arguments.color == "always" or (
        arguments.color == "auto" and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    )
    print(sample_text.render(view, colour, shutil.get_terminal_size().columns))
    if view.problem and view.raw is not None:
        print(f"\nthe record:\n{sample_text.visible(_as_text(view.raw))}")
    if arguments.html:
        sample_page.write(view, arguments.html)
        print(f"\npage: {arguments.html}")
    return 1 if view.problem else 0


def _open(arguments: argparse.Namespace, config: Any):
    """The data set that is meant: FILE, which is then the config's only one, or ``--dataset``.

    Raises:
        ValueError: both or neither of FILE and --dataset, or no such data set.
    """
    from llava_mole.data.prepared.recordset import open_dataset

    if arguments.file and arguments.dataset:
        raise ValueError("data show: give a FILE or --dataset NAME, not both")
    known = {
        dataset.name: dataset
        for group in (*config.data.domains.values(), config.data.eval)
        for dataset in group.datasets
    }
    name = arguments.dataset or (next(iter(known)) if len(known) == 1 else None)
    if name not in known:
        given = f"no data set {name!r} in {arguments.config}" if name else "which data set?"
        raise ValueError(
            f"data show: {given}; give a FILE, or --dataset with one of {', '.join(known) or '-'}"
        )
    return open_dataset(known[name], cache_dir=config.data.cache_dir)


def _find(records, arguments: argparse.Namespace):
    """The row that is meant, or the problem where the item is no record.

    Raises:
        ValueError: there is none.
    """
    if arguments.line is not None:
        return _find_line(records, arguments.line)
    for key in ("id", "source"):
        value = getattr(arguments, key)
        if value is not None:
            row = _first(records, key, value)
            if row is None and key == "id":
                bad = [problem for problem in records.problems if problem.id == value]
                row = bad[0] if bad else None
            if row is None:
                raise ValueError(f"{records.name}: no record with {key} {value!r}")
            return row
    if not len(records):
        raise ValueError(
            f"{records.name}: no good record in it; 'llava-mole data check' says why, and --line N "
            "shows a bad one"
        )
    if arguments.random:
        return random.Random(arguments.seed).randrange(len(records))
    index = arguments.index or 0
    if not 0 <= index < len(records):
        raise ValueError(
            f"--index {index}: {records.name} has the records 0 to {len(records) - 1:,}"
        )
    return index


def _find_line(records, wanted: str):
    """The record or problem of ``N`` or ``FILE:N``."""
    import pyarrow.compute as pc

    file, _, number = wanted.rpartition(":")
    if not number.isdigit():
        raise ValueError(f"--line {wanted!r}: write it as N or FILE:N")
    line = int(number)
    lines = records.rows.data.column("line")
    rows = pc.indices_nonzero(pc.equal(lines, line)).to_pylist()
    places = [(records.rows[row]["file"], row) for row in rows]
    places += [(item.file, item) for item in records.problems if item.line == line]
    places = [(path, found) for path, found in places if not file or path.endswith(file)]
    files = sorted({path for path, _ in places})
    if not places:
        raise ValueError(f"{records.name}: no record begins in line {wanted}")
    if len(files) > 1:
        some = ", ".join(f"{path}:{line}" for path in files[:3])
        raise ValueError(f"--line {wanted}: in {len(files)} files; say which, as in {some}")
    return places[0][1]


def _first(records, column: str, value: str) -> int | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    table = records.rows.data
    row = pc.index(table.column(column), pa.scalar(value, table.schema.field(column).type)).as_py()
    return None if row < 0 else row


def _as_text(raw: Any) -> str:
    return raw if isinstance(raw, str) else json.dumps(raw, indent=2, ensure_ascii=False)
