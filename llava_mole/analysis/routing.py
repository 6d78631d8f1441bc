"""Share of tokens per expert, layer and data set, counted and drawn (LLaVA-MoLE, Sec. 4.5).

Figure 3 of the paper shows the mean share over a benchmark's sequences and its standard deviation
for four layers; here are the same figures for every layer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llava_mole.tuner import routing_of


@dataclass(frozen=True)
class Load:
    """Share of a data set's tokens that each expert gets.

    Attributes:
        mean: (N, K) float64 in [0, 1], averaged over sequences; each row sums to 1.
        std: (N, K) float64, its standard deviation over sequences.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def to_dict(self) -> dict[str, list[list[float]]]:
        """Plain numbers for JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}


@torch.inference_mode()
def expert_load(model: torch.nn.Module, batches: Iterable[Mapping[str, Any]]) -> Load:
    """Routes every batch through ``model`` and counts each sequence's expert choices.

    Args:
        model: a PEFT model with a MoLE adapter.
        batches: keyword arguments of ``model``'s forward, as the collators make them.

    Raises:
        ValueError: the model has no MoLE layer, or there is no batch.
    """
    shares = []
    for batch in batches:
        model(**batch)
        counts = routing_of(model).counts.double()
        shares.append(counts / counts.sum(-1, keepdim=True))
    if not shares:
        raise ValueError("no sample to route; give at least one record")
    share = torch.cat(shares, dim=1).cpu()
    return Load(share.mean(1), share.std(1, correction=0))


def table(loads: Mapping[str, Load]) -> str:
    """A text table: each set's share of tokens per expert, averaged over layers."""
    experts = next(iter(loads.values())).mean.shape[1]
    width = max([len("set"), *map(len, loads)])
    lines = [f"{'set':{width}}" + "".join(f"  expert {k:<3}" for k in range(experts))]
    for name, load in loads.items():
        shares = load.mean.mean(0)
        lines.append(f"{name:{width}}" + "".join(f"  {100 * share:8.1f}%" for share in shares))
    return "\n".join(lines)


def draw(loads: Mapping[str, Load], file: Path, layers: Iterable[int] | None = None) -> None:
    """Draws one row of bars a layer, one group a data set, one bar an expert (Fig. 3's form).

    Args:
        loads: data set name to its load.
        file: picture to write; the suffix chooses the format.
        layers: MoLE layers to show, counted from 0; all of them by default.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    depth, experts = next(iter(loads.values())).mean.shape
    shown = list(range(depth)) if layers is None else list(layers)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(3.1 * columns, 2.3 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    width = 0.8 / experts
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for layer, axis in zip(shown, axes.flat, strict=False):
        for expert in range(experts):
            axis.bar(
                [place + (expert - (experts - 1) / 2) * width for place in range(len(loads))],
                [load.mean[layer, expert] for load in loads.values()],
                width,
                yerr=[load.std[layer, expert] for load in loads.values()],
                error_kw={"linewidth": 0.8},
                label=f"$E_{{{expert}}}$",
            )
        axis.set_title(f"layer {layer}", fontsize=9)
        axis.axhline(1 / experts, color="grey", linewidth=0.6, linestyle=":")
        axis.set_xticks(range(len(loads)), list(loads), fontsize=8)
        axis.set_ylim(0, 1)
    axes[0, 0].legend(fontsize=8, ncols=experts, loc="upper left")
    figure.suptitle(
        "Tokens per expert, mean ± std over sequences (dotted: an even share)", fontsize=10
    )
    figure.supylabel("share of tokens", fontsize=9)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)
