"""One conversation's routing as a picture: for each layer the image, the shares and the words."""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from llava_mole.analysis.routing.drawing import expert_style, legend
from llava_mole.analysis.routing.paint import painted, square_of
from llava_mole.analysis.routing.palette import colour, hatch, ink
from llava_mole.analysis.routing.tracing import Trace
from llava_mole.analysis.sample import Token
from llava_mole.analysis.sample_text import visible

# Points; a character of DejaVu Sans Mono is 0.602 of its size wide.
_TEXT = 7.5
_CHARACTER = 0.602 * _TEXT
_LINE = 13.0
_WIDTH = 480.0
_IMAGE = 225.0
_BAR = 10.0
# Side of the square as it is drawn, in pixels.
_PIXELS = 720
# A layer of a picture for people; the page has them all.
MOST_LAYERS = 8


def shown_places(trace: Trace, places: Sequence[int]) -> list[int]:
    """The layers that a picture has room for, spread evenly over ``places``."""
    if len(places) <= MOST_LAYERS:
        return list(places)
    step = (len(places) - 1) / (MOST_LAYERS - 1)
    return [places[round(index * step)] for index in range(MOST_LAYERS)]


def draw_trace(plt: Any, trace: Trace, places: Sequence[int]) -> Any:
    """A row a layer: the image with its tokens' experts, the shares, the text's tokens.

    Args:
        plt: of `drawing.pyplot`.
        trace: what to draw.
        places: layers to show, by their place among those that have experts.

    Returns:
        The figure.
    """
    boxes, lines = _laid_out(trace.tokens)
    bars = _LINE * len(trace.parts)
    words = bars + 14 + _LINE * lines
    image = _IMAGE if trace.grid is not None else 0.0
    height = max(image, words) + 26
    figure, axes = plt.subplots(
        len(places),
        2,
        figsize=((image + _WIDTH + 40) / 72, (height * len(places) + 34) / 72),
        width_ratios=[max(image, 1), _WIDTH],
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=2 / 72, h_pad=3 / 72, wspace=0.01, hspace=0.01)
    square = np.asarray(square_of(trace, _PIXELS))
    for place, (left, right) in zip(places, axes, strict=True):
        left.set_axis_off()
        if trace.grid is not None:
            _draw_image(left, trace, place, square)
        right.set(xlim=(0, _WIDTH), ylim=(max(image, words), -4))
        right.set_axis_off()
        right.set_title(
            f"layer {trace.layers[place]}", fontsize=9, loc="left", fontweight="bold", pad=2
        )
        _draw_shares(right, trace, place)
        for token, x, line, text in boxes:
            _draw_token(right, trace, place, token, x, bars + 14 + _LINE * line, text)
    legend(figure, trace.num_experts)
    return figure


def _draw_image(axis: Any, trace: Trace, place: int, square: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    grid, at = trace.grid, trace.square
    assert grid is not None
    experts = trace.expert[place, trace.image_positions]
    covered = at.covered(grid)
    shown = painted(square, grid, experts, covered)
    axis.imshow(shown, interpolation="none")
    edges = [round(n * grid.cell * _PIXELS) - 0.5 for n in range(1, grid.side)]
    span = grid.side * grid.cell * _PIXELS - 0.5
    lines = {"colors": "white", "linewidth": 0.4, "alpha": 0.5}
    axis.vlines(edges, -0.5, span, **lines)
    axis.hlines(edges, -0.5, span, **lines)
    size = min(7.0, 0.5 * _IMAGE * grid.cell)
    for index, expert in enumerate(experts.tolist()):
        left, top, right, bottom = grid.box(index, _PIXELS)
        if size >= 3:
            dark = shown[top:bottom, left:right].mean() < 128
            axis.text(
                (left + right) / 2,
                (top + bottom) / 2,
                str(expert),
                fontsize=size,
                ha="center",
                va="center_baseline",
                color="white" if dark else "black",
                alpha=1 if covered.flatten()[index] else 0.55,
            )
    scale = _PIXELS / at.side
    corner = (at.left * scale - 0.5, at.top * scale - 0.5)
    axis.add_patch(
        Rectangle(
            corner, at.width * scale, at.height * scale, fill=False, edgecolor="black", linewidth=1
        )
    )


def _draw_shares(axis: Any, trace: Trace, place: int) -> None:
    from matplotlib.patches import Rectangle

    label = 15 * _CHARACTER
    for row, part in enumerate(trace.parts):
        counts = trace.counts(part)[place]
        total = int(counts.sum())
        y = row * _LINE
        axis.text(0, y + _BAR / 2, f"{part} ({total})", fontsize=7, va="center")
        x = label
        for expert, number in enumerate(counts.tolist()):
            width = (_WIDTH - label) * number / max(total, 1)
            if not number:
                continue
            axis.add_patch(Rectangle((x, y), width, _BAR, **expert_style(expert)))
            text = f"{100 * number / total:.0f} %"
            if width > 1.3 * _CHARACTER * len(text) and not hatch(expert):
                axis.text(
                    x + width / 2,
                    y + _BAR / 2,
                    text,
                    fontsize=6.5,
                    ha="center",
                    va="center_baseline",
                    color=ink(expert),
                )
            x += width


def _draw_token(
    axis: Any, trace: Trace, place: int, token: Token, x: float, y: float, text: str
) -> None:
    from matplotlib.patches import Rectangle

    width = _width(text)
    if token.kind == "image":
        style = {"facecolor": "#eeeeee", "edgecolor": "white", "linewidth": 0.6}
        dark = "black"
    else:
        expert = int(trace.expert[place, token.position])
        style = {"facecolor": colour(expert), "edgecolor": "white", "linewidth": 0.6}
        style["hatch"] = hatch(expert)
        dark = ink(expert)
    if token.kind == "target":
        style |= {"edgecolor": "black", "linewidth": 0.9}
    inset = 0.5
    axis.add_patch(Rectangle((x, y), width - inset, _LINE - 2.5, **style))
    box = {"facecolor": style["facecolor"], "edgecolor": "none", "pad": 0.2}
    axis.text(
        x + width / 2,
        y + (_LINE - 2.5) / 2,
        text,
        fontsize=_TEXT,
        family="DejaVu Sans Mono",
        color=dark,
        ha="center",
        va="center_baseline",
        bbox=box if style.get("hatch") else None,
    )


def _laid_out(tokens: Sequence[Token]) -> tuple[list[tuple[Token, float, int, str]], int]:
    """Each token's left edge in points, its line and its text, and the number of lines."""
    boxes: list[tuple[Token, float, int, str]] = []
    x, line = 0.0, 0
    for token in tokens:
        text = shown_text(token)
        longest = int(_WIDTH / _CHARACTER) - 2
        text = text if _cells(text) <= longest else f"{text[: longest // 2]}…"
        if x and x + _width(text) > _WIDTH:
            x, line = 0.0, line + 1
        boxes.append((token, x, line, text))
        x += _width(text)
        if token.text.endswith("\n"):
            x, line = 0.0, line + 1
    return boxes, line + 1


def shown_text(token: Token) -> str:
    """What stands in a token's box: its text with white space that can be seen."""
    if token.kind == "image":
        return f"image ×{token.count}"
    text = token.text or (token.name if token.start == token.end else "·")
    return visible(text).replace("\n", "↵").replace("\t", "→").replace(" ", "␣") or "·"


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _width(text: str) -> float:
    return (_cells(text) + 0.9) * _CHARACTER
