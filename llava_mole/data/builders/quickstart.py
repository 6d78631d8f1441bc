"""Builds the quickstart's sets side by side.

    python -m llava_mole.data.builders.quickstart --output-dir playground/data/quickstart

Sets that are complete are left as they are, so the command may be repeated after an interruption.
"""

import argparse
import importlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from llava_mole.data.builders.store import Sizes

# Folder of the set -> module with its ``build``.
BUILDERS = {"general": "general", "document": "document", "biomedicine": "histology"}
# What two cores can encode and train on within the quickstart's minutes.
SIZES = Sizes(pretrain=900, train=900, test=300)


def build_all(
    output_dir: str | Path, seed: int = 0, sizes: Sizes = SIZES, processes: int = 2
) -> list[Path]:
    """Builds every set below ``output_dir``.

    Returns:
        The folders of the sets.

    Raises:
        ValueError: a package is missing, or a set cannot be as large as asked.
    """
    folders = [Path(output_dir) / name for name in BUILDERS]
    # ``spawn``: the caller may have torch's threads running, which do not survive a fork. The
    # lock keeps the sets' progress bars, one line each, from writing into one another.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        max_workers=min(processes, len(BUILDERS)),
        mp_context=context,
        initializer=tqdm.set_lock,
        initargs=(context.RLock(),),
    ) as pool:
        jobs = [
            pool.submit(_build, module, folder, seed, sizes, position)
            for position, (module, folder) in enumerate(
                zip(BUILDERS.values(), folders, strict=True)
            )
        ]
        for job in jobs:
            job.result()
    return folders


def _build(module: str, folder: Path, seed: int, sizes: Sizes, position: int) -> None:
    builder = importlib.import_module(f"llava_mole.data.builders.{module}")
    builder.build(folder, seed, sizes, progress_position=position)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, default=Path("playground/data/quickstart"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pretrain", type=int, default=SIZES.pretrain, help="captions a set")
    parser.add_argument("--train", type=int, default=SIZES.train, help="conversations a set")
    parser.add_argument("--test", type=int, default=SIZES.test, help="test questions a set")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    sizes = Sizes(given.pretrain, given.train, given.test)
    for folder in build_all(given.output_dir, given.seed, sizes, given.processes):
        print(folder)


if __name__ == "__main__":
    main()
