"""A small LLaVA file that is prepared in many pieces."""

import json
from pathlib import Path

from llava_mole.data.sources.llava import LlavaSource
from tests.data.helpers import row

PIECE_ITEMS = 7


def write_rows(path: Path) -> Path:
    """60 rows, every seventh bad: nine pieces of `PIECE_ITEMS`."""
    rows = [row(f"r{i}", f"{i}.png", answer=f"A {i}" if i % 7 else " ") for i in range(60)]
    path.write_text(json.dumps(rows, indent=1))
    return path


def source_of(path: Path) -> LlavaSource:
    return LlavaSource(str(path), "set")


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
