"""What the figures share: colours for any kind of colour vision, fonts, the scale's label, PNG."""

import io
import textwrap
from contextlib import AbstractContextManager
from typing import Any

from PIL import Image

from llava_mole.analysis import plotting

# Of Okabe and Ito. A colour is never all that tells two things apart: marks and names do too.
BLUE, ORANGE, PURPLE = "#0072B2", "#E69F00", "#CC79A7"
RED, GREY, PALE, DARK = "#D55E00", "#888888", "#c8c8c8", "#666666"
INK, SHADE = "#222222", "#ececec"
SMALL, TINY = 8, 7
_DPI = 160
_COLOURS = 32
_STYLE = {
    "font.size": SMALL,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": SMALL,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": TINY,
    "ytick.labelsize": SMALL,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
}


def pyplot() -> AbstractContextManager[Any]:
    """matplotlib's pyplot in this style; figures made inside are closed at the end."""
    return plotting.pyplot(_STYLE)


def finish(figure: Any, label: str) -> bytes:
    """Writes the scale's label above everything; the figure as a PNG file.

    Args:
        figure: laid out by ``constrained``.
        label: of the scale; empty for none.
    """
    if label:
        # A letter of this size is about 0.075 inches wide; lines are of about the same length.
        fits = max(30, int(figure.get_figwidth() / 0.075))
        lines = -(-len(label) // fits)
        width = min(fits, len(label) // lines + 8)
        figure.suptitle(
            "\n".join(textwrap.wrap(label, width)), fontsize=SMALL, fontweight="bold", color=RED
        )
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=_DPI, format="png")
    # A few colours and their blends with white need no more, and reports are committed. Without
    # the library's version: the same figures give the same file.
    with Image.open(drawn) as image:
        small = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    small.save(file, "PNG", optimize=True, dpi=(_DPI, _DPI))
    return file.getvalue()


def arms(estimate: Any) -> list[list[float]]:
    """Both arms of one interval, ``(2, 1)``, as matplotlib's error bars take them."""
    return [[estimate.value - estimate.low], [estimate.high - estimate.value]]
