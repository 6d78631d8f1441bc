"""What every picture needs of matplotlib: no screen, nothing left open, whole files."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".png", ".svg", ".pdf")


def check_suffix(
    file: str | os.PathLike[str], option: str = "--output", allowed: Sequence[str] = SUFFIXES
) -> None:
    """Raises ValueError unless ``file`` can be drawn to: to find out before long work."""
    if Path(file).suffix not in allowed:
        raise ValueError(f"{option} {file}: name it {', '.join(allowed[:-1])} or {allowed[-1]}")


@contextlib.contextmanager
def pyplot(style: Mapping[str, Any]) -> Iterator[Any]:
    """matplotlib's pyplot without a screen; figures made inside are closed at the end.

    Args:
        style: matplotlib's rc parameters inside.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # Names are text, not formulas.
    everywhere = {"text.parse_math": False}
    with matplotlib.rc_context(everywhere | dict(style)), warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        before = set(plt.get_fignums())
        try:
            yield plt
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


def save(figure: Any, file: Path, dpi: int) -> None:
    """Writes a figure, replacing ``file`` in one step; the folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        figure.savefig(partial, dpi=dpi)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
