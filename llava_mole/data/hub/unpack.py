"""Unpacks tar and zip archives from the net: regular files only, inside their folder only."""

import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

# An archive of images hardly compresses: one that unpacks to more than this is a bomb.
MAX_GROWTH = 20
SPARE = 2**30
# What some systems add to archives.
_LITTER = ("__MACOSX", ".DS_Store")


def unpack(archive: str | Path, holds: str | Path) -> int:
    """Unpacks ``archive`` so that its content comes to lie in ``holds``.

    Archives name the folders above their content or not: ``DUE_Benchmark/DocVQA/pngs/x.png``,
    ``DocVQA/pngs/x.png`` and ``pngs/x.png`` all become ``.../DUE_Benchmark/DocVQA/pngs/x.png``. A
    file that is there with its size is kept, so an interrupted unpacking goes on.

    Args:
        archive: .tar, .tar.gz or .zip.
        holds: folder that is the archive's content.

    Returns:
        How many files it has.

    Raises:
        ValueError: not an archive, one far larger inside than outside, or a member that is a link,
            a device, or leads outside.
    """
    holds, count = Path(holds), 0
    left = MAX_GROWTH * os.path.getsize(archive) + SPARE
    try:
        for name, size, open_ in _members(str(archive)):
            target = _place(holds, _parts(name))
            count, left = count + 1, left - size
            if left < 0:
                raise ValueError(f"it unpacks to more than {MAX_GROWTH} times its size; refused.")
            if target.is_file() and target.stat().st_size == size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + ".partial")
            with open_() as source, open(partial, "wb") as file:
                shutil.copyfileobj(source, file, 2**20)
            os.replace(partial, target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise ValueError(f"{archive}: {reason}; delete it and download it again.") from None
    except ValueError as error:
        raise ValueError(f"{archive}: {error}") from None
    return count


def _members(archive: str) -> Iterator[tuple[str, int, Callable[[], BinaryIO]]]:
    """Name, size and opener of each regular file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                # The upper half of the attributes is a Unix mode; 0o12 is a link.
                if info.external_attr >> 28 == 0o12:
                    raise ValueError(f"{info.filename!r} is a link; links are not unpacked.")
                if not info.is_dir() and not _is_litter(info.filename):
                    yield info.filename, info.file_size, lambda info=info: packed.open(info)
        return
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.isdir() or _is_litter(member.name):
                continue
            if not member.isreg():
                raise ValueError(f"{member.name!r} is a link or device; only files are unpacked.")
            yield member.name, member.size, lambda member=member: packed.extractfile(member)


def _is_litter(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part in _LITTER or part.startswith("._") for part in parts)


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the name of a member."""
    path = PurePosixPath(name.replace("\\", "/"))
    parts = tuple(part for part in path.parts if part != ".")
    if path.is_absolute() or ".." in parts or not parts or "\0" in name or ":" in parts[0]:
        raise ValueError(f"{name[:200]!r} leads outside the folder; nothing of it is unpacked.")
    return parts


def _place(holds: Path, parts: tuple[str, ...]) -> Path:
    """Where a member goes: ``holds`` and the member's folders overlap as far as they agree."""
    above = holds.parts
    for length in range(min(len(above), len(parts) - 1), 0, -1):
        if above[-length:] == parts[:length]:
            return holds.joinpath(*parts[length:])
    return holds.joinpath(*parts)
