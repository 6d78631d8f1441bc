"""What the pictures of this folder share: colours, headings, and writing a file in one step."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llava_mole.analysis import plotting

# Red where two domains pull apart, blue where they pull alike.
_MAP = "RdBu"
_GREY = "#d9d9d9"
INK = "#333333"
_STYLE = {"font.size": 9, "hatch.linewidth": 0.5}


def save(make: Callable[[Any], Any], file: str | os.PathLike[str]) -> None:
    """Writes the figure that ``make`` returns, given pyplot, replacing ``file`` in one step.

    Raises:
        ValueError: another suffix than ``.png``, ``.svg`` or ``.pdf``.
    """
    plotting.check_suffix(file)
    with plotting.pyplot(_STYLE) as plt:
        plotting.save(make(plt), Path(file), dpi=150)


def diverging():
    """The colour map of signed values; grey where there is none."""
    import matplotlib

    return matplotlib.colormaps[_MAP].with_extremes(bad=_GREY)


def heading(axis, text: str) -> None:
    """Titles a panel."""
    axis.set_title(text, fontsize=9.5, loc="left", fontweight="bold", color=INK)
