"""What the pictures share: matplotlib without a screen, stacked bars, the legend, files."""

import io
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from llava_mole.analysis import plotting
from llava_mole.analysis.routing.palette import colour, hatch

SUFFIXES = (*plotting.SUFFIXES, ".jpg")
SMALL, TITLE = 7.5, 9
_DPI = 180
_STYLE = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "hatch.linewidth": 0.6,
    # Text stays text in files that can hold it.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def check_suffix(file: str | os.PathLike[str]) -> None:
    """Raises ValueError unless ``file`` can be drawn to: to find out before long work."""
    plotting.check_suffix(file, allowed=SUFFIXES)


def pyplot() -> AbstractContextManager[Any]:
    """matplotlib's pyplot with this package's style; figures made inside are closed at the end."""
    return plotting.pyplot(_STYLE)


def png_of(figure: Any) -> bytes:
    """A figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, dpi=_DPI, format="png")
    return file.getvalue()


def save(figure: Any, file: Path) -> bytes:
    """Writes a figure, replacing ``file`` in one step; returns it as a PNG file."""
    plotting.save(figure, file, _DPI)
    return file.read_bytes() if file.suffix == ".png" else png_of(figure)


def expert_style(expert: int) -> dict[str, Any]:
    """How bars and areas of an expert are filled."""
    return {
        "facecolor": colour(expert),
        "hatch": hatch(expert),
        "edgecolor": "white",
        "linewidth": 0.3,
    }


def legend(figure: Any, num_experts: int, **options: Any) -> None:
    """All experts in one line or a few, above the panels."""
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(label=f"expert {k}", **expert_style(k)) for k in range(num_experts)],
        **{
            "loc": "outside upper center",
            "ncols": min(num_experts, 8),
            "frameon": False,
            "handlelength": 1.1,
            "columnspacing": 1.4,
            "fontsize": 8,
        }
        | options,
    )


def below(axis: Any, columns: int, gap: float) -> None:
    """The legend of one panel's lines, ``gap`` of the panel's height below it."""
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -gap),
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        columnspacing=1.2,
    )


def stack(axis: Any, load: torch.Tensor, layers: Sequence[int]) -> None:
    """One bar a layer, the experts' shares on top of one another.

    Args:
        axis: to draw on.
        load: (N, K) shares.
        layers: numbers of the N layers.
    """
    below = torch.zeros(len(layers), dtype=load.dtype)
    for expert in range(load.shape[1]):
        share = load[:, expert]
        axis.bar(range(len(layers)), share, 0.86, bottom=below, **expert_style(expert))
        below = below + share
    every = -(-len(layers) // 12)
    ticks = list(range(0, len(layers), every))
    axis.set_xticks(ticks, [str(layers[tick]) for tick in ticks], fontsize=SMALL)
    axis.set_xlim(-0.6, len(layers) - 0.4)
    share_axis(axis)


def share_axis(axis: Any, top: float = 1.0) -> None:
    """A vertical axis of shares in percent."""
    step = next(step for step in (0.05, 0.1, 0.25) if top <= 5.5 * step or step == 0.25)
    ticks = [step * number for number in range(int(1 / step) + 1) if step * number <= top]
    axis.set_yticks(ticks, [f"{100 * tick:.0f}" for tick in ticks], fontsize=SMALL)
    axis.set_ylim(0, top)


def shortened(name: str, longest: int = 24) -> str:
    """A name that fits below a bar; matplotlib leaves out what begins with an underscore."""
    short = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return f" {short}" if short.startswith("_") else short
