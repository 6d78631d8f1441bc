"""An image's padded square with each cell in the colour of the expert it went to."""

import math

import numpy as np
import torch
from PIL import Image

from llava_mole.analysis.routing.grid import Grid
from llava_mole.analysis.routing.palette import angle, rgb
from llava_mole.analysis.routing.tracing import Trace

STRENGTH = 0.55
# What only pads the image is routed like the rest, but shows nothing: its colour is fainter.
PADDING_STRENGTH = 0.2


def square_of(trace: Trace, pixels: int) -> Image.Image:
    """The image on its padded square, ``pixels`` a side."""
    square = trace.square.padded(trace.image, trace.fill)
    return square.resize((pixels, pixels), Image.Resampling.LANCZOS)


def painted(
    square: np.ndarray,
    grid: Grid,
    experts: torch.Tensor,
    covered: torch.Tensor,
    strength: float = STRENGTH,
    padding_strength: float = PADDING_STRENGTH,
) -> np.ndarray:
    """Lays the experts' colours over a square.

    Args:
        square: (S, S, 3) uint8.
        grid: of its cells.
        experts: (G * G,) int64, each cell's expert, row by row.
        covered: (G, G) bool, whether the cell shows any of the image.
        strength: share of the colour in the result, 0 to 1.
        padding_strength: the same for cells that show padding alone.

    Returns:
        (S, S, 3) uint8.
    """
    pixels = len(square)
    result = square.astype(np.float32)
    y, x = np.mgrid[:pixels, :pixels]
    for index, expert in enumerate(experts.tolist()):
        left, top, right, bottom = grid.box(index, pixels)
        cell = np.s_[top:bottom, left:right]
        tint = np.broadcast_to(np.float32(rgb(expert)), result[cell].shape).copy()
        if (turned := angle(expert)) is not None:
            tint[_stripes(x[cell], y[cell], turned, (right - left) / 4)] = 255
        share = strength if covered.flatten()[index] else padding_strength
        result[cell] = (1 - share) * result[cell] + share * tint
    return result.round().astype(np.uint8)


def _stripes(x: np.ndarray, y: np.ndarray, degrees: int, period: float) -> np.ndarray:
    """Whether a pixel lies on a stripe, a quarter of each period."""
    turn = math.radians(degrees)
    return (x * math.sin(turn) + y * math.cos(turn)) % max(period, 2) < max(period, 2) / 4
