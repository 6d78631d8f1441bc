"""Which weights a run or checkpoint holds, so that answers are never taken for another model's."""

from pathlib import Path

from llava_mole.files import file_sha256

# A complete checkpoint's files are too large to be read for this: name and size tell them apart.
_HASHED_BYTES = 2 * 2**30


def weights_of(run_dir: str | Path) -> dict[str, str]:
    """Each weight file's name to its SHA-256, or to its size where it has more than 2 GiB.

    Args:
        run_dir: run directory or checkpoint; a hub name has no files here and gives ``{}``.
    """
    found = {}
    for file in sorted(Path(run_dir).glob("*.safetensors")):
        size = file.stat().st_size
        found[file.name] = file_sha256(file) if size <= _HASHED_BYTES else f"{size} bytes"
    return found
