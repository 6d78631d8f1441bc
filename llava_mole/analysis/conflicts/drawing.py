"""What the pictures of this folder share: colours, headings, and writing a file in one step."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Red where two domains pull apart, blue where they pull alike.
_MAP = "RdBu"
_GREY = "#d9d9d9"
INK = "#333333"
_SUFFIXES = (".png", ".svg", ".pdf")


def check_suffix(file: str | os.PathLike[str]) -> None:
    """Raises ValueError unless ``file`` can be drawn to: to find out before long work."""
    if Path(file).suffix not in _SUFFIXES:
        raise ValueError(f"--output {file}: name it .png, .svg or .pdf")


def save(make: Callable[[Any], Any], file: str | os.PathLike[str]) -> None:
    """Writes the figure that ``make`` returns, given pyplot, replacing ``file`` in one step.

    Raises:
        ValueError: another suffix than ``.png``, ``.svg`` or ``.pdf``.
    """
    file = Path(file)
    check_suffix(file)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Names are text, not formulas.
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9, "hatch.linewidth": 0.5}):
        figure = make(pyplot)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{os.getpid()}.{file.name}")
        figure.savefig(partial, dpi=150)
    pyplot.close(figure)
    os.replace(partial, file)


def diverging():
    """The colour map of signed values; grey where there is none."""
    import matplotlib

    return matplotlib.colormaps[_MAP].with_extremes(bad=_GREY)


def heading(axis, text: str) -> None:
    """Titles a panel."""
    axis.set_title(text, fontsize=9.5, loc="left", fontweight="bold", color=INK)
