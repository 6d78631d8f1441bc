"""The load of the experts while a run trained."""

from typing import Any

from llava_mole.analysis.routing.drawing import (
    SMALL,
    TITLE,
    below,
    expert_style,
    legend,
    share_axis,
    shortened,
    stack,
)
from llava_mole.analysis.routing.training import Training


def draw_training(plt: Any, training: Training) -> Any:
    """A row of panels a data set: its load over steps, and by layer; below, two summary lines.

    Args:
        plt: of `drawing.pyplot`.
        training: what to draw.

    Returns:
        The figure.
    """
    names = list(training.load)
    by_layer = [name for name in names if name in training.total]
    depth = len(training.total[by_layer[0]]) if by_layer else 0
    widths = [3.6, max(1.9, 0.12 * depth + 0.6)]
    rows = len(names) + 1
    figure, axes = plt.subplots(
        rows,
        2,
        figsize=(sum(widths) + 0.6, 1.35 * rows + 0.9),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    for name, (over_steps, layers) in zip(names, axes, strict=False):
        load = training.load[name]
        over_steps.set_ylabel(f"{shortened(name)}\ntokens, %", fontsize=8)
        known = ~load.isnan().any(1)
        steps = [s for s, k in zip(training.steps, known.tolist(), strict=True) if k]
        bottom = load[known, 0] * 0
        for expert in range(load.shape[1]):
            above = bottom + load[known, expert]
            over_steps.fill_between(steps, bottom, above, **expert_style(expert))
            bottom = above
        share_axis(over_steps)
        if len(training.steps) > 1:
            over_steps.set_xlim(training.steps[0], training.steps[-1])
        if name in training.total:
            total = training.total[name]
            # Of a run's records alone, so that layers are known by their place only.
            stack(layers, total.nan_to_num(), range(len(total)))
            layers.set_yticklabels([])
        else:
            layers.set_visible(False)
    axes[0, 0].set_title("between two log lines, mean over layers", fontsize=TITLE, loc="left")
    if by_layer:
        axes[0, 1].set_title(f"steps 1 to {training.total_step}", fontsize=TITLE, loc="left")
        axes[len(names) - 1, 1].set_xlabel("layer", fontsize=8)
    _summary(axes[-1, 0], axes[-1, 1], training)
    experts = next(iter(training.load.values())).shape[1]
    legend(figure, experts)
    return figure


def _summary(divergence: Any, entropy: Any, training: Training) -> None:
    divergence.plot(training.steps, training.jensen_shannon, color="black", linewidth=1.2)
    divergence.set_ylabel("divergence of\ndata sets, bits", fontsize=8)
    divergence.set_ylim(bottom=0)
    for index, (name, values) in enumerate(training.entropy.items()):
        # The experts' colours mean something else.
        grey = f"{0.15 + 0.6 * index / max(1, len(training.entropy) - 1):.2f}"
        style = ("-", "--", "-.", ":")[index % 4]
        entropy.plot(
            training.steps,
            values,
            color=grey,
            linestyle=style,
            linewidth=1.2,
            label=shortened(name),
        )
    entropy.set_ylabel("entropy\n(1: even)", fontsize=8)
    entropy.set_ylim(0, 1.02)
    below(entropy, columns=3, gap=0.42)
    for axis in (divergence, entropy):
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=SMALL)
        if len(training.steps) > 1:
            axis.set_xlim(training.steps[0], training.steps[-1])
        axis.grid(axis="y", color="#e3e3e3", linewidth=0.6)
        axis.set_axisbelow(True)
