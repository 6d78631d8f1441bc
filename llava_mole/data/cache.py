"""Where what is made once and used again is kept."""

import os
from pathlib import Path


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """``folder``, or where it is None the user's cache: ``~/.cache/llava_mole``."""
    if folder is not None:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "llava_mole"
