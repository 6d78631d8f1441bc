"""A published data set into a prepared folder: by several processes, resumable, whole or nothing.

The source's pieces are shared out; each becomes one shard in ``OUTPUT.partial``, which becomes
``OUTPUT`` by a rename when all are there. A preparation that was stopped, by whatever means, goes
on from its finished pieces. What comes out depends on the files and the settings alone, to the
byte: not on the number of processes, nor on how often it was stopped.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava_mole.data.prepared.folder import (
    FORMAT_VERSION,
    INFO,
    PROBLEMS,
    Prepared,
    load,
    read_info,
    write_info,
    write_json,
)
from llava_mole.data.prepared.shards import ShardWriter, Task
from llava_mole.data.sources.source import Source
from llava_mole.data.workers import mapped

_PLAN = "plan.json"
_PIECES = "pieces"


def prepare(
    source: Source,
    output: str | os.PathLike[str],
    *,
    image_root: str | os.PathLike[str] | None = None,
    encoder: Any = None,
    processes: int = 1,
    progress: bool = False,
    overwrite: bool = False,
) -> Prepared:
    """Prepares ``source`` in ``output``; returns at once where that was done before.

    Args:
        source: the published files.
        output: folder to make.
        image_root: folder that image paths start from; default, where the source says.
        encoder: an `Encoder` whose lengths fill the column ``length``; None leaves it empty. A
            record that it can't encode stays, with no length.
        processes: worker processes.
        progress: whether to show a progress bar.
        overwrite: whether a folder that was prepared from other files or settings, or is damaged,
            is replaced.

    Raises:
        ValueError: files missing or broken as a whole, too little room on the disk, no such
            ``image_root``, or an ``output`` that holds something else.
    """
    output = Path(os.path.abspath(output))
    plan = _plan(source, encoder)
    if image_root is not None and not os.path.isdir(image_root):
        raise ValueError(f"image root {image_root} is not a folder; correct it")
    root = _relative(image_root if image_root is not None else source.image_root(), output)
    if ready := _ready(output, plan, root, overwrite):
        return ready
    output.parent.mkdir(parents=True, exist_ok=True)
    with _alone(output.with_name(output.name + ".lock")):
        # Another process may have prepared it while this one waited.
        if ready := _ready(output, plan, root, overwrite):
            return ready
        partial = output.with_name(output.name + ".partial")
        if not _begin(partial, plan):
            _check_space(partial, plan)
            writer = ShardWriter(source, partial / _PIECES, encoder)
            try:
                shards = _write(writer, plan, processes, progress)
            except ValueError:
                # Nothing to go on from: the files themselves have to change first.
                shutil.rmtree(partial)
                raise
            _finish(partial, plan, root, shards)
        _move(partial, output)
    return load(output)


def _plan(source: Source, encoder: Any) -> dict[str, Any]:
    """Everything that the content depends on."""
    files = []
    for path in source.files():
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{path!r}: the file's name is not UTF-8; rename it") from None
        status = os.stat(path)
        files.append({"path": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    lengths = None
    if encoder is not None:
        lengths = {
            "fingerprint": encoder.fingerprint,
            "tokenizer": str(getattr(encoder.tokenizer, "name_or_path", "")),
            "num_image_tokens": encoder.num_image_tokens,
        }
    plan = {
        "format_version": FORMAT_VERSION,
        "source": {"name": source.name, "settings": source.settings()},
        "files": files,
        "lengths": lengths,
    }
    # As it will be read back: tuples become lists.
    return json.loads(json.dumps(plan))


def _relative(image_root: str | os.PathLike[str], output: Path) -> str:
    """``image_root`` as seen from ``output``, so that both can move together."""
    root, folder = os.path.realpath(image_root), os.path.realpath(output)
    # Folders with nothing in common do not move together.
    return root if os.path.commonpath([root, folder]) == "/" else os.path.relpath(root, folder)


def _ready(output: Path, plan: dict[str, Any], image_root: str, overwrite: bool) -> Prepared | None:
    """The folder ``output`` if ``plan`` made it; None where it is to be made."""
    try:
        info = read_info(output)
        prepared = load(output) if info is not None else None
        if overwrite and prepared is not None:
            prepared.verify()
    except ValueError:
        if overwrite:
            return None
        raise
    if info is None:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(
                f"{output} exists but is no prepared data set (no {INFO}); move it away or name "
                "another output"
            )
        return None
    if not _made_by(info, plan):
        if overwrite:
            return None
        others = " and ".join(key for key in plan if info.get(key) != plan[key])
        raise ValueError(
            f"{output} was prepared from something else (see {others} in its {INFO}); name another "
            "output, or replace the whole folder with --overwrite"
        )
    if info["image_root"] == image_root:
        return prepared
    write_json(output / INFO, {**info, "image_root": image_root})
    return load(output)


def _begin(partial: Path, plan: dict[str, Any]) -> bool:
    """Makes ``partial`` ready for pieces of ``plan``, keeping those that are there.

    Returns:
        Whether it is complete already and only the last rename is missing.
    """
    info = read_info(partial)
    if info is not None and _made_by(info, plan):
        return True
    if partial.exists():
        begun = _read_plan(partial)
        if begun is None and info is None and any(partial.iterdir()):
            raise ValueError(f"{partial} was not written by a preparation; move it away")
        if begun != plan or info is not None:
            shutil.rmtree(partial)
    (partial / _PIECES).mkdir(parents=True, exist_ok=True)
    write_json(partial / _PLAN, plan)
    return False


def _read_plan(partial: Path) -> dict[str, Any] | None:
    try:
        return json.loads((partial / _PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _made_by(info: dict[str, Any], plan: dict[str, Any]) -> bool:
    return all(info.get(key) == value for key, value in plan.items())


def _check_space(partial: Path, plan: dict[str, Any]) -> None:
    """Raises ValueError if the disk can't hold about as much as the files to be read."""
    there = sum(entry.stat().st_size for entry in os.scandir(partial / _PIECES))
    needed = sum(file["size"] for file in plan["files"]) - there
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise ValueError(
            f"{partial.parent}: about {needed / 2**30:,.1f} GiB are needed and "
            f"{free / 2**30:,.1f} GiB are free; make room or choose another output"
        )


def _write(
    writer: ShardWriter, plan: dict[str, Any], processes: int, progress: bool
) -> list[dict[str, Any]]:
    """Writes all pieces and returns their reports in order."""
    reports, problems, records = [], 0, 0
    total = sum(file["size"] for file in plan["files"])
    bar = tqdm(
        total=total, desc=plan["source"]["name"], unit="B", unit_scale=True, disable=not progress
    )
    parts = (writer.source, *(writer.encoder.parts if writer.encoder else ()))
    with bar, mapped(writer, _tasks(writer.source), processes, parts) as written:
        for (_, piece), report in written:
            reports.append(report)
            records, problems = records + report["rows"], problems + report["problems"]
            bar.set_postfix_str(f"{records:,} records, {problems:,} problems", refresh=False)
            # Pieces that count rows, not bytes, move the bar only at the end.
            bar.update(min(piece.stop - piece.start if piece else 0, total - bar.n))
        bar.update(total - bar.n)
    return reports


def _tasks(source: Source) -> Iterator[Task]:
    """The source's pieces, numbered; at least one, for a data set has at least one shard."""
    number = -1
    for number, piece in enumerate(source.pieces()):
        yield number, piece
    if number < 0:
        yield 0, None


def _finish(
    partial: Path, plan: dict[str, Any], image_root: str, reports: list[dict[str, Any]]
) -> None:
    """Puts the folder together; may be stopped at any point and begun again."""
    pieces = partial / _PIECES
    shards = []
    for number, report in enumerate(reports):
        name = f"data-{number:05d}-of-{len(reports):05d}.arrow"
        # Already moved by a preparation that was stopped here.
        with contextlib.suppress(FileNotFoundError):
            os.replace(pieces / f"{number:05d}.arrow", partial / name)
        shards.append({"file": name, **report})
    with open(partial / PROBLEMS, "wb") as problems:
        for number in range(len(reports)):
            with open(pieces / f"{number:05d}.jsonl", "rb") as part:
                shutil.copyfileobj(part, problems)
    write_info(partial, plan, image_root, shards)


def _move(partial: Path, output: Path) -> None:
    """``partial`` in place of ``output``, which is there whole at any moment but one."""
    shutil.rmtree(partial / _PIECES, ignore_errors=True)
    (partial / _PLAN).unlink(missing_ok=True)
    replaced = output.with_name(output.name + ".replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if output.exists():
        os.rename(output, replaced)
    os.rename(partial, output)
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a lock that the system frees when its process ends, however it ends."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                break
        # The holder before took the file away: this lock locks nothing any more.
        os.close(descriptor)
    try:
        yield
    finally:
        os.unlink(path)
        os.close(descriptor)
