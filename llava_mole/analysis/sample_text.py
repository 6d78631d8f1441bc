"""A sample for the terminal: facts, thumbnails of half blocks, the prompt with its labels."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image

from llava_mole.analysis.sample import Picture, Token, View

RESET = "\x1b[0m"
COLOURS = {"target": "\x1b[1;32m", "image": "\x1b[1;35m", "prompt": "", "problem": "\x1b[1;31m"}
# Where there is no colour, what the model learns stands between these.
MARKS = ("[[", "]]")
MEANING = {
    "target": "supervised: the model learns to write it",
    "prompt": "not supervised: it only reads this",
    "image": "an image's tokens, not supervised",
}
_THUMBNAIL = 36


def visible(text: str) -> str:
    """``text`` without anything that acts on a terminal or reorders what is read.

    Controls, invisible format characters and lone surrogates become escapes such as ``\\x1b``;
    line breaks, tabs and the joiners that scripts and emoji need stay.
    """
    return "".join(
        character
        if character in "\n\t\u200c\u200d"
        or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def render(view: View, colour: bool = True, width: int = 80) -> str:
    """The sample as text.

    Args:
        view: of `look`.
        colour: 24-bit colours and thumbnails; otherwise supervised text stands in ``[[ ]]``.
        width: columns of the terminal.
    """
    blocks = ["\n".join(facts(view))]
    if view.problem:
        blocks.append(_paint(f"cannot be trained on: {visible(view.problem)}", "problem", colour))
    if view.pictures:
        blocks.append("\n".join(_images(view.pictures, colour, width)))
    if view.tokens:
        blocks.append(prompt(view.tokens, colour).rstrip("\n"))
        blocks.append(_legend(colour))
    return "\n\n".join(blocks)


def facts(view: View) -> list[str]:
    """Where the sample is from and how long it is, a line each."""
    place = f"{view.file}:{view.line}" if view.file else "(no file)"
    named = [f"{key} {value!r}" for key, value in (("id", view.id), *names(view)) if value]
    lines = [visible(place), visible("   ".join(named))]
    if view.tokens:
        lines.append(lengths(view))
    if view.dropped_turns:
        lines.append(f"{view.dropped_turns} turn(s) left out at the end, they don't fit")
    return lines


def names(view: View) -> list[tuple[str, str]]:
    """What the sample belongs to; a source that only repeats the data set's name is left out."""
    source = "" if view.source == view.dataset else view.source
    found = [("data set", view.dataset), ("source", source), ("task", view.task)]
    return [(key, value) for key, value in found if value]


def lengths(view: View) -> str:
    """The sample's lengths as one line."""
    images = sum(token.count for token in view.tokens if token.kind == "image")
    share = view.num_supervised / view.length
    return (
        f"{view.length:,} of {view.max_length:,} tokens: {images:,} image tokens, "
        f"{view.num_supervised:,} supervised ({share:.1%})"
    )


def describe(picture: Picture) -> str:
    """What the image is and what became of it, or why it can't be used."""
    if picture.problem:
        return picture.problem
    width, height = picture.size
    seen_height, seen_width = picture.pixels.shape[:2]
    size = f"{width:,} x {height:,}, the model sees {seen_width} x {seen_height}"
    return "; ".join((size, *picture.notes))


def prompt(tokens: Sequence[Token], colour: bool) -> str:
    """The whole prompt, runs of one kind marked together."""
    runs: list[tuple[str, str]] = []
    for token in tokens:
        text = visible(token.text)
        if token.kind == "image":
            text = f"{text} x{token.count}"
        elif not text and token.start == token.end:
            # Stands for no characters, such as <s>.
            text = visible(token.name)
        if runs and runs[-1][0] == token.kind:
            runs[-1] = (token.kind, runs[-1][1] + text)
        else:
            runs.append((token.kind, text))
    if not colour:
        return "".join(
            MARKS[0] + text + MARKS[1] if kind == "target" else text for kind, text in runs
        )
    return "".join(_paint(text, kind, colour) for kind, text in runs)


def thumbnail(pixels: np.ndarray, columns: int = _THUMBNAIL) -> list[str]:
    """(H, W, 3) uint8 as lines of half blocks, two pixels a character.

    A character is about twice as high as wide, so square pixels come out.
    """
    height, width = pixels.shape[:2]
    rows = max(1, round(columns * height / width / 2))
    image = Image.fromarray(pixels).resize((columns, 2 * rows), Image.Resampling.BOX)
    small = np.asarray(image).tolist()
    lines = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        cells = [
            f"\x1b[38;2;{a};{b};{c}m\x1b[48;2;{d};{e};{f}m▀"
            for (a, b, c), (d, e, f) in zip(upper, lower, strict=True)
        ]
        lines.append("".join(cells) + RESET)
    return lines


def _images(pictures: Sequence[Picture], colour: bool, width: int) -> list[str]:
    lines = [
        f"image {number}: {visible(picture.name)}: {visible(describe(picture))}"
        for number, picture in enumerate(pictures, start=1)
    ]
    if colour:
        shown = [thumbnail(p.pixels) for p in pictures if p.pixels is not None]
        beside = max(1, (width + 2) // (_THUMBNAIL + 2))
        for start in range(0, len(shown), beside):
            lines.append("")
            lines += ["  ".join(row) for row in zip(*shown[start : start + beside], strict=True)]
    return lines


def _legend(colour: bool) -> str:
    if not colour:
        return f"{MARKS[0]}...{MARKS[1]} {MEANING['target']}"
    return "\n".join(f"{_paint('■', kind, True)} {text}" for kind, text in MEANING.items())


def _paint(text: str, kind: str, colour: bool) -> str:
    return f"{COLOURS[kind]}{text}{RESET}" if colour and COLOURS[kind] else text
