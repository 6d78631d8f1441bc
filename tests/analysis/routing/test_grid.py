"""Where an image's tokens lie, against the pixels that the tower gets and the tower's own order."""

import numpy as np
import pytest
import torch
from PIL import Image

from llava_mole.analysis.routing.grid import Grid, Square, grid_of
from llava_mole.analysis.routing.paint import painted
from llava_mole.analysis.routing.palette import rgb
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.model import ModelConfig, build_model
from llava_mole.model.processor import pil_image_processor
from tests import tiny
from tests.analysis.routing import helpers

GREY = [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "size", [(100, 100), (100, 40), (40, 100), (101, 50), (50, 101), (96, 95), (37, 5)]
)
@pytest.mark.parametrize("side", [2, 5, 20])
def test_cells_of_the_image_and_of_its_padding(size, side):
    grid, square = Grid(side, 1 / side), Square(*size)
    covered = square.covered(grid)
    # Each of the image's pixels lies in a cell.
    expected = torch.zeros(side, side, dtype=torch.bool)
    longest = max(size)
    for y in range(size[1]):
        for x in range(size[0]):
            left, top = x + (longest - size[0]) // 2, y + (longest - size[1]) // 2
            corners = [(left, top), (left + 1 - 1e-9, top + 1 - 1e-9)]
            (c0, r0), (c1, r1) = (
                (int(u * side / longest), int(v * side / longest)) for u, v in corners
            )
            expected[r0 : r1 + 1, c0 : c1 + 1] = True
    assert torch.equal(covered, expected)

    # A black image on grey padding, as the tower gets it: where it is dark there is image.
    pixels = ProcessorPixels(pil_image_processor(14 * side, GREY, GREY))(Image.new("RGB", size))
    dark = (pixels[0] < -0.5).float().unflatten(0, (side, 14)).unflatten(2, (side, 14))
    share = dark.mean((1, 3))
    assert covered[share > 0.15].all()
    assert (share[covered] > 0).float().mean() > 0.7
    assert share[~covered].max() < 0.15 if (~covered).any() else True


def test_cells_are_in_the_towers_order(tmp_path):
    """One bright cell of a wide image changes the embedding of the token that is drawn there."""
    model = build_model(ModelConfig(**tiny.tiny_model_section(tmp_path)))
    pixels = ProcessorPixels(pil_image_processor(tiny.IMAGE_SIZE, GREY, GREY))
    visual = model.model.vision_tower.visual
    size = (280, 140)
    grid, square = grid_of(helpers.P), Square(*size)

    def embedded(image):
        with torch.no_grad():
            return visual.conv1(pixels(image)[None]).flatten(2)[0].T  # (P, width)

    plain = embedded(Image.new("RGB", size))
    for index in range(helpers.P):
        left, top, right, bottom = grid.box(index, square.side)
        image = Image.new("RGB", size)
        # The middle of the cell, in the image's own pixels.
        x, y = (left + right) // 2 - square.left, (top + bottom) // 2 - square.top
        y = min(max(y, 20), size[1] - 20)
        image.paste((255, 255, 255), (x - 8, y - 8, x + 8, y + 8))
        changed = (embedded(image) - plain).abs().amax(1) > 1e-4
        assert changed.nonzero().flatten().tolist() == [index]


def test_grids():
    assert grid_of(576) == Grid(24, 1 / 24)
    assert grid_of(575) is None
    assert grid_of(0) is None
    processor = helpers.processor()
    assert grid_of(helpers.P, processor) == Grid(2, 0.5)
    # 14 does not divide 384: 27 patches, and 6 pixels at the end that no patch reads.
    processor.image_processor = pil_image_processor(384, GREY, GREY)
    grid = grid_of(27 * 27, processor)
    assert grid.side == 27
    assert grid.box(27 * 27 - 1, 384) == (364, 364, 378, 378)


def test_painted_cells_have_their_experts_colours():
    """A wide image on its square: middle rows are image, the first and the last padding."""
    square = Square(80, 40)
    image = Image.new("RGB", (80, 40), (240, 240, 240))
    base = np.asarray(square.padded(image, (0, 0, 0)))
    assert base.shape == (80, 80, 3)
    assert base[19, 5].tolist() == [0, 0, 0]
    assert base[20, 5].tolist() == [240, 240, 240]
    grid = Grid(4, 0.25)
    experts = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 3, 2, 1, 0])
    covered = square.covered(grid)
    assert covered.tolist() == [[False] * 4, [True] * 4, [True] * 4, [False] * 4]
    shown = painted(base, grid, experts, covered, strength=0.5, padding_strength=0.25)
    for index, expert in enumerate(experts.tolist()):
        row, column = divmod(index, 4)
        share = 0.5 if row in (1, 2) else 0.25
        below = 240 if row in (1, 2) else 0
        expected = [round((1 - share) * below + share * value) for value in rgb(expert)]
        for y, x in ((0, 0), (0, 19), (19, 0), (19, 19), (10, 10)):
            pixel = shown[20 * row + y, 20 * column + x].tolist()
            assert pixel == pytest.approx(expected, abs=1)
    full = painted(base, grid, experts, covered, strength=1)
    assert full[25, 25].tolist() == list(rgb(5))


def test_experts_of_one_colour_differ_by_stripes():
    base = np.zeros((60, 60, 3), np.uint8)
    plain, striped, other = (
        painted(base, Grid(1, 1.0), torch.tensor([k]), torch.ones(1, 1, dtype=torch.bool), 1)
        for k in (1, 9, 17)
    )
    assert {tuple(p) for p in plain.reshape(-1, 3).tolist()} == {rgb(1)}
    assert {tuple(p) for p in striped.reshape(-1, 3).tolist()} == {rgb(1), (255, 255, 255)}
    assert (striped != other).any()
