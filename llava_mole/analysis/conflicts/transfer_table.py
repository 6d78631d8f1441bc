"""The transfer matrix as a table for a terminal."""

from collections.abc import Sequence

from llava_mole.analysis.conflicts.transfer import MIX, Transfer
from llava_mole.eval.scores import Estimate


def transfer_text(found: Transfer) -> str:
    """What ``llava-mole conflicts --runs`` prints."""
    rows = [["trained on", *found.columns]]
    for name in found.scores:
        marks = [" *" if best == name else "  " for best in found.best]
        cells = [f"{_score(e)}{m}" for e, m in zip(found.scores[name], marks, strict=True)]
        rows.append([name, *cells])
    lines = [
        "score in %, 95 % interval in brackets; * the best single domain",
        "",
        *columns(rows),
    ]
    if MIX in found.scores:
        rows = [["mixture minus", *found.columns]]
        rows += [[name, *map(_signed, found.loss(name))] for name in found.runs]
        best = [found.loss(name)[column] for column, name in enumerate(found.best)]
        rows.append(["the best single", *map(_signed, best)])
        lines += ["", "what the mixture gains (+) or loses (-):", "", *columns(rows)]
    return "\n".join(lines)


def _score(estimate: Estimate) -> str:
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}]"


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.1f} [{estimate.low:+.1f}, {estimate.high:+.1f}]"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with aligned columns, the first to the left."""
    width = max(map(len, rows))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(width)]
    return [
        "   ".join(
            cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]
