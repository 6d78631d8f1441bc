"""What several rooms do with files."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def refuse_unwritable(path: Path, option: str) -> None:
    """Finds out before the work, not at its end, that its outcome could not be written.

    Args:
        path: a file that will be written; its folder is made.
        option: what names it, such as ``--output``.

    Raises:
        ValueError: it is a folder, or its folder can't be made or written to.
    """
    if path.is_dir():
        raise ValueError(f"{option}: {path} is a folder; name a file, or move it away")
    refuse_unwritable_folder(path.parent, option)


def refuse_unwritable_folder(folder: Path, option: str) -> None:
    """`refuse_unwritable` of what will be written into ``folder``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        raise ValueError(f"{option}: can't write to {folder}: {why}; name another") from None


def replace_text(path: Path, text: str) -> None:
    """`replace_bytes` of text."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Writes a file in one step and onto the disk: no reader ever sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace_json(path: Path, values: Any) -> None:
    """`replace_text` of JSON."""
    replace_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
