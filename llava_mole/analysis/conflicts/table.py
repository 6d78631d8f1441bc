"""Measured conflicts as tables for a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llava_mole.analysis.conflicts.breakdown import Conflicts
from llava_mole.analysis.conflicts.cosine import Cosines
from llava_mole.analysis.conflicts.measure import Measurement
from llava_mole.analysis.conflicts.transfer_table import columns

UNDECIDED = "undecided"
_NOUN = {"domain": "domain", "dataset": "data set"}
# Pairs that a breakdown has columns for.
_COLUMNS = 3


def conflict_text(found: Measurement) -> str:
    """What ``llava-mole conflicts`` prints of a measurement."""
    about, parts = found.about, found.conflicts
    adapter = about["adapter"]
    kind = "plain LoRA" if adapter["type"] == "lora" else f"MoLE, K = {adapter['num_experts']},"
    lines = [
        f"{kind} r = {adapter['r']}, weights {about['weights']}; {about['batches']} batches of "
        f"{about['batch_size']} samples from each {_NOUN[about['by']]}, seed {about['seed']}; "
        f"gradients of {about['numbers']:,} numbers",
        *found.notes,
        "",
        "cosine between mean gradients, 95 % interval over batches in brackets",
    ]
    for name, cosines in parts.overall.items():
        if name != "all" or len(parts.overall) == 1:
            lines += ["", *_matrix(name, cosines)]
    lines += [
        "",
        "|g|: norm of the mean gradient",
        f"two halves: plain cosine between the means of two halves of a {_NOUN[about['by']]}'s own "
        "batches, 1 without noise",
        f"{UNDECIDED}: a mean gradient is not above its noise; more or larger batches decide",
        "",
        *_breakdown(parts),
        "",
        *summary(parts),
    ]
    return "\n".join(lines)


def summary(parts: Conflicts) -> list[str]:
    """For each pair, in how many of the (layer, linear) cells it agrees and conflicts."""
    lines = [f"of {len(parts.cells)} (layer, linear) cells, by their 95 % intervals:"]
    rows = [["", "conflict", "agree", "neither", UNDECIDED]]
    for a, b in parts.headline.pairs():
        counts = count_cells(parts, a, b)
        rows.append([_pair(parts.names, a, b), *(str(counts[key]) for key in rows[0][1:])])
    return [*lines, *columns(rows)]


def count_cells(parts: Conflicts, a: int, b: int) -> dict[str, int]:
    """Cells of the pair whose interval lies below 0, above, around it, or that are undecided."""
    counts = {"conflict": 0, "agree": 0, "neither": 0, UNDECIDED: 0}
    for cell in parts.cells.values():
        if math.isnan(cell.value[a, b]):
            counts[UNDECIDED] += 1
        elif cell.high[a, b] < 0:
            counts["conflict"] += 1
        elif cell.low[a, b] > 0:
            counts["agree"] += 1
        else:
            counts["neither"] += 1
    return counts


def _matrix(title: str, found: Cosines) -> list[str]:
    names = found.names
    rows = [[title, *names[1:], "|g|", "two halves"]]
    for a, name in enumerate(names):
        cells = [_cell(found, a, b) if b > a else "" for b in range(1, len(names))]
        decided = found.decided[a]
        norm = f"{math.sqrt(found.squared_norm[a]):.3g}" if decided else UNDECIDED
        rows.append([name, *cells, norm, f"{found.halves[a]:.2f}"])
    return columns(rows)


def _breakdown(parts: Conflicts) -> list[str]:
    """Tables by layer, linear and factor, of the pairs with the lowest cosines."""
    pairs = lowest_pairs(parts.headline, _COLUMNS)
    total = len(parts.headline.pairs())
    groups: list[tuple[str, Mapping[Any, Cosines]]] = [
        ("layer", parts.layers),
        ("linear", parts.linears),
    ]
    if len(parts.factors) > 1:
        groups.append(("factor", parts.factors))
    rows: list[list[str]] = []
    for title, group in groups:
        rows += [[title, *(_pair(parts.names, a, b) for a, b in pairs)]]
        rows += [
            [str(key), *(_cell(found, a, b) for a, b in pairs)] for key, found in group.items()
        ]
        rows.append([])
    note = [] if len(pairs) == total else [f"(the lowest {len(pairs)} of {total} pairs)"]
    return [*columns(rows[:-1]), *note]


def lowest_pairs(found: Cosines, number: int) -> list[tuple[int, int]]:
    """At most ``number`` index pairs, those with the lowest cosines; undecided ones last."""
    pairs = found.pairs()
    chosen = sorted(pairs, key=lambda pair: (math.isnan(found.value[pair]), found.value[pair]))
    return [pair for pair in pairs if pair in chosen[:number]]


def _pair(names: Sequence[str], a: int, b: int) -> str:
    return f"{names[a]} – {names[b]}"


def _cell(found: Cosines, a: int, b: int) -> str:
    if math.isnan(found.value[a, b]):
        return UNDECIDED
    return f"{found.value[a, b]:+.2f} [{found.low[a, b]:+.2f}, {found.high[a, b]:+.2f}]"
