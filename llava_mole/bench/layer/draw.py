"""The layer's figures as bars, one panel for each thing measured; quartiles as whiskers."""

from collections.abc import Sequence
from typing import Any

from llava_mole.bench.figures import Figure
from llava_mole.bench.layer.arms import MOLE, PEFT
from llava_mole.bench.layer.memory import UNIT

_OURS, _BAR, _OTHERS = "#2f6f8f", "#c9a66b", "#b8b8b8"
_ROW_INCHES, _WIDTH_INCHES = 0.22, 7.0


def panels(plt: Any, figures: Sequence[Figure]) -> Any:
    """Draws every arm over PEFT's, and every arm's saved bytes.

    Args:
        plt: matplotlib's pyplot, as `llava_mole.analysis.plotting.pyplot` gives it.
        figures: of `llava_mole.bench.layer.run`; those over other arms than PEFT's are left out.

    Returns:
        A matplotlib figure.
    """
    groups = grouped(figures)
    rows = [len(group) for group in groups.values()]
    picture, axes = plt.subplots(
        len(groups),
        figsize=(_WIDTH_INCHES, sum(rows) * _ROW_INCHES + len(rows) * 0.9),
        height_ratios=rows,
        squeeze=False,
        layout="constrained",
    )
    for (title, group), axis in zip(groups.items(), axes[:, 0], strict=True):
        _panel(axis, title, group)
    return picture


def grouped(figures: Sequence[Figure]) -> dict[str, dict[str, Figure]]:
    """What was measured -> name of the arm -> its figure."""
    groups: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        over_peft = figure.name.endswith(f" / {PEFT}") and figure.quartiles
        if over_peft or figure.unit == UNIT:
            shape, what, arm = figure.name.split(", ", 2)
            groups.setdefault(f"{shape}, {what}", {})[arm.removesuffix(f" / {PEFT}")] = figure
    return groups


def _panel(axis: Any, title: str, group: dict[str, Figure]) -> None:
    ratio = next(iter(group.values())).unit == "x"
    values = [figure.value for figure in group.values()]
    colors = [_color(arm) for arm in group]
    axis.barh(range(len(group)), values, color=colors, height=0.7)
    for row, figure in enumerate(group.values()):
        end = figure.value
        if figure.quartiles:
            low, _, end = figure.quartiles
            axis.plot([low, end], [row, row], color="black", linewidth=1)
        if figure.target is not None:
            axis.plot([figure.target] * 2, [row - 0.45, row + 0.45], color="black", linestyle=":")
        label = f"{figure.value:.3g}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # over the line at 1
        axis.text(end + max(values) * 0.01, row, label, va="center", fontsize=7, bbox=box)
    if ratio:
        axis.axvline(1, color=_BAR, linewidth=0.8)
    axis.set_yticks(range(len(group)), list(group))
    axis.invert_yaxis()
    axis.margins(x=0.08, y=0.01)
    axis.set_title(title, loc="left", fontsize=9)
    axis.set_xlabel(f"time / {PEFT}'s; dotted: the most that is wanted" if ratio else UNIT)
    axis.spines[["top", "right"]].set_visible(False)


def _color(arm: str) -> str:
    if arm.startswith(f"{MOLE} "):
        return _OURS
    return _BAR if arm == PEFT else _OTHERS
