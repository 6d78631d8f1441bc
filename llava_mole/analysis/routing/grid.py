"""Where an image's tokens lie on it: LLaVA pads the image to a square, which the tower cuts up.

The square's side is the image's longer one, the image lies in its middle, and token g of G x G in
reading order is the cell in row g // G and column g % G.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image


@dataclass(frozen=True)
class Grid:
    """The cells of a square.

    Attributes:
        side: G, cells a row and a column.
        cell: side of a cell as a share of the square's. A ViT whose patches don't divide its
            resolution leaves a strip at the right and at the bottom that no token reads, so G
            times this may be less than 1.
    """

    side: int
    cell: float

    def box(self, index: int, pixels: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom (one past) of a cell on a square of ``pixels`` a side."""
        row, column = divmod(index, self.side)
        edges = [round(n * self.cell * pixels) for n in (column, row, column + 1, row + 1)]
        return edges[0], edges[1], edges[2], edges[3]


def grid_of(num_tokens: int, processor: Any = None) -> Grid | None:
    """The grid of an image's P tokens.

    Args:
        num_tokens: P.
        processor: the LLaVA processor, for the size of a patch; without one the cells fill the
            square.

    Returns:
        None where P is no square number: nobody knows then where the tokens lie.
    """
    side = math.isqrt(num_tokens)
    if num_tokens < 1 or side * side != num_tokens:
        return None
    patch = getattr(processor, "patch_size", None)
    pixels = processor.image_processor.crop_size["height"] if patch else None
    if patch and pixels // patch == side:
        return Grid(side, patch / pixels)
    return Grid(side, 1 / side)


@dataclass(frozen=True)
class Square:
    """An image's place on its padded square, in its own pixels.

    Attributes:
        width: of the image.
        height: of the image.
    """

    width: int
    height: int

    @property
    def side(self) -> int:
        """Of the square."""
        return max(self.width, self.height)

    @property
    def left(self) -> int:
        """The image's first column on the square."""
        return (self.side - self.width) // 2

    @property
    def top(self) -> int:
        """The image's first row on the square."""
        return (self.side - self.height) // 2

    def covered(self, grid: Grid) -> torch.Tensor:
        """(G, G) bool, whether a cell shows any of the image; the others see padding alone."""
        edges = torch.arange(grid.side + 1, dtype=torch.float64) * grid.cell * self.side
        # An edge at a whole pixel is exactly there, or cells that only touch would overlap.
        edges = edges.round(decimals=6)
        across = (edges[1:] > self.left) & (edges[:-1] < self.left + self.width)
        down = (edges[1:] > self.top) & (edges[:-1] < self.top + self.height)
        return down[:, None] & across[None]

    def padded(self, image: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
        """``image`` on its square of colour ``fill``."""
        square = Image.new("RGB", (self.side, self.side), fill)
        square.paste(image, (self.left, self.top))
        return square
