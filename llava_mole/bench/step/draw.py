"""The benchmark's picture: samples per second of every arm over LLaVA's way, with quartiles."""

from collections.abc import Mapping
from typing import Any

from llava_mole.bench.step.measure import LORA, SPEEDUP
from llava_mole.bench.step.ways import LLAVA_NAME

_LLAVA, _LEVER, _OURS = "#8c8c8c", "#c9a66b", "#2f6f8f"


def bars(axes: Any, speed: Mapping[str, tuple[float, float, float]]) -> None:
    """Draws into matplotlib's ``axes``: a bar an arm, whiskers from quartile to quartile.

    Args:
        axes: empty.
        speed: lower quartile, median and upper quartile by arm, in the order of the bars.
    """
    names = list(speed)
    places = range(len(names))
    middles = [speed[name][1] for name in names]
    below = [speed[name][1] - speed[name][0] for name in names]
    above = [speed[name][2] - speed[name][1] for name in names]
    axes.barh(
        places,
        middles,
        color=[_colour(name) for name in names],
        xerr=[below, above],
        error_kw={"ecolor": "#202020", "capsize": 3, "elinewidth": 1},
    )
    for place, middle, whisker in zip(places, middles, above, strict=True):
        axes.text(middle + whisker + 0.03, place, f"{middle:.2f}", va="center")
    axes.axvline(1, color=_LLAVA, linewidth=1, linestyle=":")
    axes.axvline(SPEEDUP, color=_OURS, linewidth=1, linestyle=":")
    axes.set_yticks(list(places), [name.removeprefix(f"{LLAVA_NAME}, ") for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, max(SPEEDUP, *(high for _, _, high in speed.values())) * 1.12)
    axes.set_xlabel(f"samples/s over {LLAVA_NAME} (median of rounds, quartiles; dotted: the aim)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _colour(name: str) -> str:
    if name == LLAVA_NAME:
        return _LLAVA
    return _OURS if name == LORA or name.startswith("MoLE") else _LEVER
