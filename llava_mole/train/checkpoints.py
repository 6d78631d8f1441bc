"""Checkpoints that are either whole or not there.

A checkpoint is written into ``.checkpoint-N.partial``, flushed to disk, described by a manifest
with the SHA-256 of every file, and only then renamed to ``checkpoint-N``. A kill at any moment
leaves the last good one; a flipped bit is found before anything is loaded. torch's and DeepSpeed's
files in it are pickles, so nothing is read from a folder that its manifest does not vouch for.
"""

import json
import os
import re
import shutil
from pathlib import Path

from llava_mole.files import file_sha256

MANIFEST = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def staging_folder(output_dir: str | Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is written before it counts."""
    return Path(output_dir) / f".checkpoint-{step}.partial"


def write_manifest(folder: Path, **facts: int | str) -> None:
    """Flushes every file below ``folder`` to disk and writes the manifest last."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        files[path.relative_to(folder).as_posix()] = {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        _flush(path)
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(json.dumps({**facts, "files": files}, indent=1) + "\n", encoding="utf-8")
    _flush(partial)
    for path in sorted(p for p in folder.rglob("*") if p.is_dir()):
        _flush(path)
    os.replace(partial, folder / MANIFEST)
    _flush(folder)


def publish(staged: Path, output_dir: Path, step: int) -> Path:
    """Renames a staged checkpoint, manifest written, to ``checkpoint-<step>``.

    A checkpoint of the same step that does not verify (a damaged one that the run went back
    behind) gives way; it stays on disk under another name until the new one is in place.
    """
    target = output_dir / f"checkpoint-{step}"
    damaged = output_dir / f".checkpoint-{step}.replaced"
    if target.exists():
        shutil.rmtree(damaged, ignore_errors=True)
        os.replace(target, damaged)
    os.replace(staged, target)
    _flush(output_dir)
    shutil.rmtree(damaged, ignore_errors=True)
    return target


def read_manifest(folder: Path) -> dict:
    """The manifest of ``folder``; raises ValueError where it is missing or unreadable."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(f"{folder}: no {MANIFEST}, so the save was never finished") from None
    except ValueError:
        raise ValueError(f"{folder}: {MANIFEST} is damaged") from None


def verify(folder: str | Path) -> dict:
    """Checks every file of a checkpoint against its manifest.

    Returns:
        The manifest.

    Raises:
        ValueError: naming the folder and the first file that is missing, extra or changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise ValueError(f"{folder}: {MANIFEST} is damaged")
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } - {MANIFEST}
    if odd := sorted(present ^ set(listed)):
        state = "is missing" if odd[0] in listed else "is not in the manifest"
        raise ValueError(f"{folder}: {odd[0]} {state}")
    for name, entry in listed.items():
        if (folder / name).stat().st_size != entry["bytes"]:
            raise ValueError(f"{folder}: {name} has another size than when it was saved")
        if file_sha256(folder / name) != entry["sha256"]:
            raise ValueError(f"{folder}: {name} differs from what was saved (SHA-256)")
    return manifest


def newest_valid(output_dir: str | Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and a message for everything that was passed over."""
    output_dir = Path(output_dir)
    if not output_dir.is_dir():
        return None, []
    messages = [
        f"ignoring {path}: the save was interrupted"
        for path in sorted(output_dir.glob(".checkpoint-*.partial"))
    ]
    for _, path in reversed(_checkpoints(output_dir)):
        try:
            verify(path)
        except ValueError as error:
            messages.append(f"ignoring {error}")
        else:
            return path, messages
    return None, messages


def set_aside(output_dir: Path, beyond: int) -> list[tuple[Path, Path]]:
    """Renames checkpoints of later steps, which a run that went back behind them has left.

    They are damaged or of another course: counted as its newest they would push out what it saves
    now, and be gone on from at the next start.

    Args:
        output_dir: the run's.
        beyond: the step that was just published.

    Returns:
        Each old and new path.
    """
    moved = []
    for step, path in _checkpoints(output_dir):
        if step > beyond:
            aside = output_dir / f"abandoned-checkpoint-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
            moved.append((path, aside))
    return moved


def remove_stale(output_dir: Path, keep: int | None) -> None:
    """Deletes half-written folders, and all but the ``keep`` newest checkpoints."""
    for pattern in (".checkpoint-*.partial", ".checkpoint-*.replaced"):
        for path in output_dir.glob(pattern):
            shutil.rmtree(path)
    if keep is not None:
        for _, path in _checkpoints(output_dir)[: -max(keep, 1)]:
            # The manifest goes first: killed in between, the rest no longer counts as valid.
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path)


def check_space(folder: str | Path, needed: int) -> None:
    """Raises OSError, naming path and bytes, where ``needed`` bytes do not fit in ``folder``."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: a checkpoint needs about {needed:,} bytes and {free:,} are free; free some "
            "space and start the same command again: it resumes from the last checkpoint."
        )


def _checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    found = [
        (int(match.group(1)), path)
        for path in output_dir.iterdir()
        if path.is_dir() and (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
