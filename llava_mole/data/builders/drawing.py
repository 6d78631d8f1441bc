"""Draws charts, tables and pages with Pillow, at the size a small image encoder reads.

Matplotlib would take 50 ms a chart; these take 1 ms. All drawing is a function of its arguments.
"""

import dataclasses
import functools
import math
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

COLORS = {
    "red": (214, 39, 40),
    "blue": (31, 100, 190),
    "green": (40, 150, 50),
    "orange": (245, 140, 20),
    "purple": (140, 80, 180),
    "black": (40, 40, 40),
}
INK = (40, 40, 45)
SIDE = 224


@dataclasses.dataclass(frozen=True)
class Style:
    """What varies between drawings of the same numbers.

    Attributes:
        width: of the image in pixels.
        height: of the image in pixels.
        paper: colour of the background.
        text: font size in pixels.
        fill: share of a bar's slot that it fills; thickness of lines follows it.
        grid: whether charts have horizontal grid lines, and tables rules.
    """

    width: int = SIDE
    height: int = SIDE
    paper: tuple[int, int, int] = (255, 255, 255)
    text: int = 9
    fill: float = 0.7
    grid: bool = True


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, so that no font file of the machine matters."""
    return ImageFont.load_default(size)


def bars(
    style: Style, title: str, labels: Sequence[str], heights: Sequence[float], color: str
) -> Image.Image:
    """A bar chart; ``heights`` are shares of the plot's height in (0, 1]."""
    image, draw, box = _axes(style, title)
    left, top, right, bottom = box
    slot = (right - left) / len(heights)
    for index, (label, height) in enumerate(zip(labels, heights, strict=True)):
        middle = left + (index + 0.5) * slot
        half = slot * style.fill / 2
        draw.rectangle(
            (middle - half, bottom - height * (bottom - top), middle + half, bottom),
            fill=COLORS[color],
        )
        _label(draw, style, middle, bottom, label, slot)
    return image


def lines(
    style: Style,
    title: str,
    labels: Sequence[str],
    series: Sequence[Sequence[float]],
    colors: Sequence[str],
) -> Image.Image:
    """A line chart; values are shares of the plot's height in [0, 1]."""
    image, draw, box = _axes(style, title)
    left, top, right, bottom = box
    count = len(series[0])
    step = (right - left) / (count - 1)
    width = 2 + round(3 * (style.fill - 0.5))
    for values, color in zip(series, colors, strict=True):
        points = [
            (left + index * step, bottom - value * (bottom - top))
            for index, value in enumerate(values)
        ]
        draw.line(points, fill=COLORS[color], width=width, joint="curve")
    for index in (0, count // 2, count - 1):
        _label(draw, style, left + index * step, bottom, labels[index], 40)
    return image


def pie(
    style: Style, title: str, shares: Sequence[float], colors: Sequence[str], start: float
) -> Image.Image:
    """A pie chart of ``shares`` that add to 1, clockwise from ``start`` degrees."""
    image, draw, box = _canvas(style, title)
    left, top, right, bottom = box
    radius = min(right - left, bottom - top) / 2 - 2
    center = ((left + right) / 2, (top + bottom) / 2)
    frame = (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)
    for share, color in zip(shares, colors, strict=True):
        end = start + 360 * share
        draw.pieslice(frame, start, end, fill=COLORS[color], outline=style.paper, width=1)
        start = end
    return image


def table(
    style: Style, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], color: str
) -> Image.Image:
    """A table with a coloured header row."""
    image, draw, box = _canvas(style, title)
    draw_table(draw, style, box, header, rows, color)
    return image


def draw_table(
    draw: ImageDraw.ImageDraw,
    style: Style,
    box: tuple[float, float, float, float],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    color: str,
) -> None:
    """Draws a table into ``box`` of a larger drawing."""
    left, top, right, bottom = box
    line = min((bottom - top) / (len(rows) + 1), style.text * 2.6)
    column = (right - left) / len(header)
    draw.rectangle((left, top, right, top + line), fill=COLORS[color])
    for number, cells in enumerate((header, *rows)):
        y = top + number * line
        for index, cell in enumerate(cells):
            draw.text(
                (left + index * column + 3, y + (line - style.text) / 2 - 1),
                _cut(cell, column - 5, style.text),
                font=font(style.text),
                fill=(255, 255, 255) if number == 0 else INK,
            )
    end = top + (len(rows) + 1) * line
    if style.grid:
        for number in range(len(rows) + 2):
            draw.line((left, top + number * line, right, top + number * line), fill=(150, 150, 150))
        for index in range(len(header) + 1):
            draw.line(
                (left + index * column, top, left + index * column, end), fill=(150, 150, 150)
            )


def page(
    style: Style, title: str | None, prose: str, columns: int, figure: Image.Image | None, at: str
) -> Image.Image:
    """A page of running text in one or two columns, with a figure at its ``top`` or ``bottom``.

    ``title`` is its heading, none if ``None``; ``prose`` is repeated until the page is full.
    """
    image, draw, (left, top, right, bottom) = _canvas(style, title)
    if figure is not None:
        height = (bottom - top) * 0.42
        width = right - left
        scaled = figure.resize((round(width), round(height)), Image.Resampling.BILINEAR)
        image.paste(scaled, (round(left), round(top if at == "top" else bottom - height)))
        top, bottom = (top + height + 6, bottom) if at == "top" else (top, bottom - height - 6)
    gap = 12
    width = (right - left - gap * (columns - 1)) / columns
    line = style.text * 1.45
    rows = int((bottom - top) // line)
    wrapped: list[str] = []
    while len(wrapped) < rows * columns:
        wrapped += textwrap.wrap(prose, max(8, int(width / (style.text * 0.52))))
    for column in range(columns):
        for row in range(rows):
            x, y = left + column * (width + gap), top + row * line
            text = _cut(wrapped[column * rows + row], width, style.text)
            draw.text((x, y), text, font=font(style.text), fill=INK)
    return image


def _canvas(style: Style, title: str | None):
    """An empty sheet, its pen, and the box (left, top, right, bottom) below the title."""
    image = Image.new("RGB", (style.width, style.height), style.paper)
    draw = ImageDraw.Draw(image)
    margin = 10
    top = margin
    if title:
        size = style.text + 2
        cut = _cut(title, style.width - 2 * margin, size)
        draw.text((margin, 6), cut, font=font(size), fill=INK)
        top = 6 + size + 9
    return image, draw, (margin, top, style.width - margin, style.height - margin)


def _axes(style: Style, title: str | None):
    image, draw, (left, top, right, bottom) = _canvas(style, title)
    left, bottom = left + 8, bottom - style.text - 2
    if style.grid:
        for tick in range(5):
            y = top + tick * (bottom - top) / 4
            draw.line((left, y, right, y), fill=(205, 205, 205))
    draw.line((left, top, left, bottom), fill=INK)
    draw.line((left, bottom, right, bottom), fill=INK)
    return image, draw, (left + 4, top, right - 4, bottom)


def _label(draw, style: Style, x: float, y: float, text: str, room: float) -> None:
    cut = _cut(text, room, style.text)
    half = font(style.text).getlength(cut) / 2
    draw.text(
        (min(max(x - half, 1), style.width - 2 * half), y + 3), cut, font=font(style.text), fill=INK
    )


def _cut(text: str, room: float, size: int) -> str:
    """The longest beginning of ``text`` that fits into ``room`` pixels."""
    while text and font(size).getlength(text) > room:
        text = text[: math.ceil(len(text) * 0.9) - 1]
    return text
