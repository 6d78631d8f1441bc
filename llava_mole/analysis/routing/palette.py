"""A colour and a pattern for each expert, told apart with any kind of colour vision.

The colours are those of Okabe and Ito without black, and a grey. From the ninth expert on they come
again with stripes, so that no two of 32 look alike; every picture names the expert as well.
"""

COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#999999",
)
# Of the stripes by matplotlib's names, and their angles in degrees where they are drawn by hand.
HATCHES = ("", "////", "\\\\\\\\", "----")
ANGLES = (None, 45, 135, 0)


def colour(expert: int) -> str:
    """``#rrggbb`` of an expert."""
    return COLOURS[expert % len(COLOURS)]


def rgb(expert: int) -> tuple[int, int, int]:
    """The same as three numbers up to 255."""
    value = colour(expert)
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def hatch(expert: int) -> str:
    """matplotlib's name of an expert's stripes, empty for none."""
    return HATCHES[expert // len(COLOURS) % len(HATCHES)]


def angle(expert: int) -> int | None:
    """Degrees that an expert's stripes are turned by, None for none."""
    return ANGLES[expert // len(COLOURS) % len(ANGLES)]


def ink(expert: int) -> str:
    """Black or white, whichever is read more easily on an expert's colour (WCAG's contrast)."""
    light = luminance(expert)
    return "#ffffff" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000000"


def luminance(expert: int) -> float:
    """WCAG's relative luminance of an expert's colour, 0 to 1."""
    parts = [value / 255 for value in rgb(expert)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
