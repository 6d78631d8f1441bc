"""Downloads a data set of the catalogue from the hub: what to expect first, then with resume.

The revision and the list of files are asked for once and kept to; room on the disk is checked
before anything is fetched. Each file comes through the hub's own client into a partial file beside
its place, and is renamed when its size and, where the hub tells one, its SHA-256 are right. An
interrupted download goes on within the file it was in when the command is given again. (The
client's ready-made download of whole repositories begins such a file anew.)
"""

import contextlib
import fnmatch
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llava_mole.data.hub.catalogue import Entry, bytes_text

# Left free beyond what is downloaded.
SPARE = 2**30


@dataclass(frozen=True)
class File:
    """A file on the hub.

    Attributes:
        size: in bytes.
        identity: changes with the content.
        sha256: of the content, "" if the hub tells none (small files).
    """

    size: int
    identity: str
    sha256: str = ""


@dataclass(frozen=True)
class Listing:
    """What the hub has of a data set, now.

    Attributes:
        revision: commit.
        licence: as the card says, "" if it says nothing.
        files: those that are taken, by path.
    """

    revision: str
    licence: str
    files: dict[str, File]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


class Unreachable(ValueError):
    """The hub does not answer."""


def look_up(entry: Entry, only: tuple[str, ...] = ()) -> Listing:
    """Asks the hub what there is.

    Args:
        entry: the data set.
        only: patterns of paths; files that match none of them are left out.

    Raises:
        Unreachable: no answer.
        ValueError: not there any more, behind a login, or nothing that ``only`` leaves.
    """
    from huggingface_hub import HfApi

    with _explained(entry):
        info = HfApi().dataset_info(entry.hub_id, files_metadata=True)
    for file in info.siblings or []:
        path = PurePosixPath(file.rfilename)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"{entry.hub_id} lists {file.rfilename!r}, which lies outside its folder: not a "
                "listing to trust, nothing was fetched"
            )
    files = {
        file.rfilename: File(
            file.size or 0, file.blob_id or info.sha, file.lfs.sha256 if file.lfs else ""
        )
        for file in info.siblings or []
        if _matches(file.rfilename, entry.files) and not _matches(file.rfilename, entry.leave)
    }
    if not files:
        raise ValueError(
            f"{entry.hub_id} has none of the files {', '.join(entry.files)} any more; see "
            f"{entry.page}"
        )
    chosen = {path: file for path, file in files.items() if not only or _matches(path, only)}
    if not chosen:
        raise ValueError(
            f"none of the {len(files)} files of {entry.hub_id} matches {', '.join(only)}; they are "
            f"called {', '.join(sorted(files)[:5])}"
        )
    licence = getattr(info.card_data, "license", None) or ""
    licence = licence if isinstance(licence, str) else ", ".join(map(str, licence))
    return Listing(info.sha, licence, chosen)


def download(entry: Entry, listing: Listing, output: str | Path) -> Path:
    """Brings the files into the set's folder below ``output``.

    Args:
        entry: the data set.
        listing: of `look_up`.
        output: the data folder.

    Returns:
        The set's folder.

    Raises:
        Unreachable: no answer; what has come is kept.
        ValueError: no room, or a file that arrived damaged; says what to do.
    """
    folder = Path(output) / entry.folder
    _check_room(entry, listing, folder)
    for path, file in listing.files.items():
        if not _complete(folder / path, file.size):
            with _explained(entry):
                _fetch(entry.hub_id, listing.revision, path, file, folder)
    return folder


def _fetch(hub_id: str, revision: str, path: str, file: File, folder: Path) -> None:
    """Brings one file, from where an earlier attempt stopped."""
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        # The hub gives files of this size only by a protocol that the client keeps to itself.
        hf_hub_download(hub_id, path, repo_type="dataset", revision=revision, local_dir=folder)
        return
    # A file that has changed on the hub since does not go on with the old one's beginning.
    partial = target.with_name(f".{target.name}.{file.identity[:16]}.partial")
    with open(partial, "ab") as stream:
        if stream.tell() > file.size:
            stream.truncate(0)
        http_get(
            hf_hub_url(hub_id, path, repo_type="dataset", revision=revision),
            stream,
            resume_size=stream.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=path,
        )
    if file.sha256 and _sha256(partial) != file.sha256:
        partial.unlink()
        raise ValueError(f"{target} arrived damaged; give the command again to fetch it anew.")
    os.replace(partial, target)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def missing_bytes(listing: Listing, folder: Path) -> int:
    """Bytes of the files that are not yet there."""
    return sum(
        file.size for path, file in listing.files.items() if not _complete(folder / path, file.size)
    )


def _check_room(entry: Entry, listing: Listing, folder: Path) -> None:
    packed = {archive.file for archive in entry.archives}
    # What is unpacked takes about as much again: images don't compress.
    extra = sum(file.size for path, file in listing.files.items() if path in packed)
    needed = missing_bytes(listing, folder)
    needed += extra if needed else 0
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed + SPARE > free:
        raise ValueError(
            f"{place} has {bytes_text(free)} free, and {bytes_text(needed)} are still to come"
            f"{' (archives and what is in them)' if extra else ''}; make room, choose another "
            "--output, or take a part with --only."
        )


def _complete(path: Path, size: int) -> bool:
    try:
        return os.path.getsize(path) == size
    except OSError:
        return False


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


@contextlib.contextmanager
def _explained(entry: Entry) -> Iterator[None]:
    """Turns the hub client's errors into what to do about them."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    # The HTTP library's own base class: which library it is differs between versions.
    library = HfHubHTTPError.__bases__[0]
    try:
        yield
    except (library, HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, GatedRepoError) or status == 403:
            raise ValueError(
                f"{entry.hub_id} is only for those who accepted its terms: do so at {entry.page}, "
                "then log in with `hf auth login` or set HF_TOKEN."
            ) from None
        if isinstance(error, RepositoryNotFoundError) or status in (401, 404):
            raise ValueError(
                f"{entry.hub_id} is not there, or only after a login: see {entry.page}; log in "
                "with `hf auth login` or set HF_TOKEN."
            ) from None
        raise Unreachable(
            f"the hub does not answer ({type(error).__name__}: {_short(error)}). Check the "
            "network, HF_ENDPOINT and HF_HUB_OFFLINE and give the command again: what has come "
            f"is kept. Or fetch the files from {entry.page} by hand."
        ) from None


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"
