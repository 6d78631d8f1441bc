"""Writes an evaluation's reports: a page for each benchmark, ``report.md`` and ``report.html``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llava_mole.eval.paper import PaperRow, row_of
from llava_mole.eval.report.html import document, header, results_table, text
from llava_mole.eval.report.markdown import cell, markdown, paper_column, section, verdict
from llava_mole.eval.report.page import write_page
from llava_mole.eval.results import lines_of
from llava_mole.eval.scores import Estimate, Scored
from llava_mole.files import replace_text


def paper_row(model_path: str | None) -> PaperRow | None:
    """The paper's row that a run directory's config is, or that a published checkpoint is."""
    if model_path is None:
        return None
    folder = Path(model_path)
    for file in (folder / "config.yaml", folder.parent / "config.yaml"):
        if file.is_file():
            return row_of(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    return row_of({"model": {"checkpoint": model_path}})


def write_benchmark(
    output: Path,
    label: str,
    entry: Mapping[str, Any],
    scored: Sequence[Scored],
    row: PaperRow | None,
    model: Mapping[str, Any],
) -> None:
    """``LABEL.html``: one benchmark's results with every example.

    Args:
        output: folder of the evaluation.
        label: names the page.
        entry: see `llava_mole.eval.results.entry`.
        scored: all its examples.
        row: the paper's row to hold it against, if there is one.
        model: who answered; empty for predictions.
    """
    lines = lines_of(entry)
    printed = paper_column(lines, None if row is None else {"scores": row.scores})
    facts = [("answers", str(model.get("model_path") or "predictions from a file"))]
    facts += [("metric", name) for name in entry["metrics"]]
    facts += [(key.replace("_", " "), str(v)) for key, v in entry["settings"].items() if v != ""]
    write_page(
        output / f"{label}.html",
        f"{entry['title']} ({label})",
        facts,
        entry["notes"],
        lines,
        scored,
        paper=printed or None,
        paper_title=row.place if row and printed else "",
        progress=True,
    )


def write_summary(output: Path, results: Mapping[str, Any], shown: Sequence[str]) -> str:
    """``report.md`` and ``report.html`` over all benchmarks in ``results``.

    Returns:
        The sections of those that were evaluated now, for the terminal.
    """
    replace_text(output / "report.md", markdown(results))
    replace_text(output / "report.html", _index(results))
    return "\n".join(
        f"\n{results['benchmarks'][label]['title']} ({label})\n"
        + section(results["benchmarks"][label], results["paper"])
        for label in shown
    )


def _index(results: Mapping[str, Any]) -> str:
    """The page over all benchmarks, each leading to its own page."""
    model, row = results["model"], results["paper"]
    title = f"Evaluation of {model.get('model_path') or 'predictions'}"
    facts = [] if row is None else [("config of", f"{row['place']} ({row['model']})")]
    body = [*header(title, facts, [])]
    for label, entry in results["benchmarks"].items():
        lines = lines_of(entry)
        printed = paper_column(lines, row)
        place = row["place"] if printed else ""
        titled = f"{entry['title']} ({label})"
        body += results_table(lines, printed or None, place, f"{label}.html", titled)
        how = {key.replace("_", " "): v for key, v in entry["settings"].items() if v != ""}
        chips = [*(("metric", name) for name in entry["metrics"]), *how.items()]
        body.append(f'<p class="chips">{"".join(_chip(*chip) for chip in chips)}</p>')
        for name, value in entry["baselines"].items():
            baseline = cell(Estimate(**value))
            body.append(
                f"<p>{text(name.replace('_', ' '))}, without seeing the image: {baseline}; is the "
                f"model clearly above? {verdict(lines[0].score, value)}</p>"
            )
        body += (f'<p class="soft">{text(note)}</p>' for note in entry["notes"])
    return document(title, "\n".join(body))


def _chip(key: str, value: object) -> str:
    return f'<span><span class="soft">{text(key)}</span> {text(str(value))}</span>'
