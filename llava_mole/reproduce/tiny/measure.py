"""What is measured on an image, of whatever domain: the truth behind the tiny scale's questions."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 64  # pixels a side that is measured on
INK = 60  # sum of the three channels' distances from the background that counts as ink


@dataclass(frozen=True)
class Measures:
    """Of one image.

    Attributes:
        left: ink of the left half minus the right half's, as a share of all ink, in [-1, 1].
        upper: the same of the upper half minus the lower half.
        covered: share of the area that is ink, in [0, 1].
        bright: mean over pixels and channels, in [0, 255].
        warm: mean red minus mean blue of the ink, in [-255, 255].
    """

    left: float
    upper: float
    covered: float
    bright: float
    warm: float


def measure(image: Image.Image) -> Measures:
    """Measures an RGB image; ink is what differs from the image's median colour."""
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE)), dtype=np.float64)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    ink = np.abs(pixels - background).sum(-1)
    ink = np.where(ink > INK, ink, 0.0)
    total = max(ink.sum(), 1.0)
    half = SIDE // 2
    colour = (pixels * ink[..., None]).sum((0, 1)) / total
    return Measures(
        left=float((ink[:, :half].sum() - ink[:, half:].sum()) / total),
        upper=float((ink[:half].sum() - ink[half:].sum()) / total),
        covered=float((ink > 0).mean()),
        bright=float(pixels.mean()),
        warm=float(colour[0] - colour[2]),
    )
