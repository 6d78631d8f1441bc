"""An evaluation's results as Markdown: what the terminal shows and ``report.md`` holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from llava_mole.eval.results import lines_of
from llava_mole.eval.scores import Estimate, Line


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report of what ``results.json`` holds."""
    model = results["model"]
    parts = [f"# Evaluation of {model.get('model_path') or 'predictions'}", ""]
    row = results["paper"]
    if row is not None:
        parts += [f"This run's config is that of {row['place']} ({row['model']}).", ""]
    parts += [
        "Scores in per cent with 95 % bootstrap intervals over images; `strict` is the same "
        "without the published scorer's quirks.",
        "",
    ]
    for label, entry in results["benchmarks"].items():
        parts += [f"## {entry['title']} ({label})", "", section(entry, row), ""]
    return "\n".join(parts)


def section(entry: Mapping[str, Any], row: Mapping[str, Any] | None) -> str:
    """One benchmark's table, baselines and notes."""
    lines = lines_of(entry)
    printed = paper_column(lines, row)
    text = [f"Metric: {', '.join(entry['metrics'])}.", ""]
    text += table(lines, printed, row["place"] if printed and row else "")
    if entry["baselines"]:
        text += ["", "Without seeing the image:", ""]
        text += _aligned(
            ["baseline", "score", "the model is clearly above"],
            [
                [name.replace("_", " "), cell(Estimate(**value)), verdict(lines[0].score, value)]
                for name, value in entry["baselines"].items()
            ],
        )
    for note in entry["notes"]:
        text += ["", f"> {note}"]
    text += [f"- `{item['id']}`: {item['error']}" for item in entry["failed"]]
    return "\n".join(text)


def table(lines: Sequence[Line], printed: Mapping[str, float], place: str) -> list[str]:
    """The result table's rows."""
    strict = any(line.strict for line in lines)
    failed = any(line.failed for line in lines)
    header = ["", "questions", "score"]
    header += ["strict"] if strict else []
    header += [place, "difference"] if printed else []
    header += ["not asked"] if failed else []
    rows = []
    for line in lines:
        name = line.name if line.kind != "dataset" else f"· {line.name}"
        row = [name, f"{line.questions:,}", cell(line.score)]
        row += [cell(line.strict) if line.strict else "-"] if strict else []
        if printed:
            value = printed.get(line.name) if line.kind != "dataset" else None
            row += (
                ["-", "-"] if value is None else [f"{value:g}", f"{line.score.value - value:+.2f}"]
            )
        row += [str(line.failed)] if failed else []
        rows.append(row)
    return _aligned(header, rows)


def paper_column(lines: Sequence[Line], row: Mapping[str, Any] | None) -> dict[str, float]:
    """The paper's value of each total and part that it prints one for."""
    if row is None:
        return {}
    names = {line.name for line in lines if line.kind != "dataset"}
    return {name: value for name, value in row["scores"].items() if name in names}


def cell(value: Estimate) -> str:
    """``54.00 [49.10, 58.90]``."""
    return f"{value.value:.2f} [{value.low:.2f}, {value.high:.2f}]"


def verdict(score: Estimate, baseline: Mapping[str, float]) -> str:
    """Whether the two intervals do not even touch, and the model's is the higher."""
    return "yes" if clearly_above(score, baseline) else "NOT SHOWN: the intervals overlap"


def clearly_above(score: Estimate, baseline: Mapping[str, float]) -> bool:
    """Whether ``score``'s interval lies above ``baseline``'s."""
    return score.low > baseline["high"]


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table whose source is aligned too; all columns but the first to the right."""
    cells = [[text.replace("|", "\\|") for text in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def join(row: list[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        return f"| {first[0]:<{first[1]}} | " + " | ".join(f"{t:>{w}}" for t, w in others) + " |"

    return [join(cells[0]), join(rule), *map(join, cells[1:])]
