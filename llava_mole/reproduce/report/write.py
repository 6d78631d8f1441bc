"""Writes a reproduction's report: Markdown, HTML, LaTeX, JSON and the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_mole.config import ConfigError
from llava_mole.files import replace_bytes, replace_json, replace_text
from llava_mole.reproduce.claims import HEADLINE, Claims, load
from llava_mole.reproduce.cosines import Cosines
from llava_mole.reproduce.judge import Judgement, judge
from llava_mole.reproduce.report.content import Figure, Report
from llava_mole.reproduce.report.figures import figures, prediction
from llava_mole.reproduce.report.html import html
from llava_mole.reproduce.report.latex import latex
from llava_mole.reproduce.report.machine import machine
from llava_mole.reproduce.report.markdown import markdown
from llava_mole.reproduce.report.notes import notes_of
from llava_mole.reproduce.report.own_seeds import own_seeds_table
from llava_mole.reproduce.report.prediction import (
    Point,
    points_of,
    points_table,
    prediction_table,
)
from llava_mole.reproduce.report.results import Results, Scale
from llava_mole.reproduce.report.tables import stamp_table, tables
from llava_mole.reproduce.report.verdicts import claims_table, comparisons_table
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.types import Measured, Row

_PICTURES = "figures"
_HEADLINE = (
    "Of each claim only its headline comparisons are judged here, by print too; whole claims are "
    "judged where every row is reported (--study)."
)


def write(
    scale: Scale,
    rows: Sequence[Row],
    measured: Mapping[str, Measured],
    claims_file: Path,
    folder: Path,
    stamp: Mapping[str, Any],
    selection: Sequence[str] = (),
    cosines: Sequence[Cosines] = (),
    own: Mapping[str, Mapping[str, Measured]] | None = None,
) -> Path:
    """Writes ``report.md``, ``.html``, ``.tex``, ``.json`` and ``figures/*.png`` into a folder.

    Args:
        scale: at which it was measured.
        rows: of the tables to show, in order, measured or not.
        measured: by row's name; claims are judged by rows that are not shown, too.
        claims_file: the claims; the rows that they may name are in the folders beside it.
        folder: what was there of an earlier report is replaced.
        stamp: what it was made of: config hashes, seeds, versions, command.
        selection: of claims, see `Claims.only`.
        cosines: of the domains' gradients, which losses are held against; none leaves that out.
        own: by claim, what was measured with its own seeds, for those that have some.

    Returns:
        The Markdown report's path.

    Raises:
        ValueError: a claims file, or a row's file beside it, that cannot be used.
    """
    every = [*rows, *(item.row for item in read_rows(claims_file.parent))]
    claims, judgements = judged(scale, every, measured, claims_file, selection, own)
    results = Results(scale, rows, every, measured, claims, judgements)
    points = points_of(results, cosines) if cosines else []
    notes = [_HEADLINE] if HEADLINE in selection else []
    report = _report(results, stamp, notes, points, own or {})
    for part in report.parts:
        if isinstance(part, Figure):
            replace_bytes(folder / _PICTURES / f"{part.name}.png", part.png)
    drawn = {f"{part.name}.png" for part in report.parts if isinstance(part, Figure)}
    for old in (folder / _PICTURES).glob("*.png"):
        # A figure that this report has not would be taken for its own.
        if old.name not in drawn:
            old.unlink()
    replace_text(folder / "report.html", html(report))
    replace_text(folder / "report.tex", latex(report, _PICTURES))
    replace_json(folder / "report.json", machine(results, stamp, points))
    replace_text(folder / "report.md", markdown(report, _PICTURES))
    return folder / "report.md"


def judged(
    scale: Scale,
    rows: Sequence[Row],
    measured: Mapping[str, Measured],
    claims_file: Path,
    selection: Sequence[str] = (),
    own: Mapping[str, Mapping[str, Measured]] | None = None,
) -> tuple[Claims, list[Judgement]]:
    """The claims of a file, and what is made of them; without results, whether they can be judged.

    Args:
        scale: at which it was measured.
        rows: all that claims may name.
        measured: by row's name.
        claims_file: the claims.
        selection: see `write`.
        own: see `write`.

    Raises:
        ValueError: a claims file that cannot be used, or one without margins for the scale.
    """
    claims = load(claims_file, {row.name for row in rows}, selection)
    try:
        return claims, judge(claims, rows, measured, scale.name, scale.columns, own)
    except ConfigError as error:
        raise ConfigError(f"{claims_file}: {error}") from None


def _report(
    results: Results,
    stamp: Mapping[str, Any],
    notes: Sequence[str],
    points: Sequence[Point],
    own: Mapping[str, Mapping[str, Measured]],
) -> Report:
    scores = list(tables(results))
    drawn = list(figures(results))
    forest = {figure.name: figure for figure in drawn if figure.name.startswith("claim-")}
    parts: list = [claims_table(results)]
    parts += [figure for figure in drawn if figure.name not in forest]
    parts += scores
    predicted = [
        prediction_table(points),
        prediction(points, results.scale.label),
        points_table(points, results.title),
    ]
    parts += [part for part in predicted if part is not None]
    for judgement in results.judgements:
        parts.append(comparisons_table(results, judgement))
        if figure := forest.get(f"claim-{judgement.name}"):
            parts.append(figure)
        if measured := own.get(judgement.name):
            parts.append(own_seeds_table(results, judgement, measured))
    parts.append(stamp_table(stamp))
    facts = [
        (name.replace("_", " "), ", ".join(map(str, value)) if _several(value) else str(value))
        for name, value in stamp.items()
        if not isinstance(value, Mapping) and (not _several(value) or len(value) <= 12)
    ]
    shown = {row.name for row in results.rows}
    facts.append(("rows measured", f"{len(shown & set(results.measured))} of {len(shown)}"))
    title = f"LLaVA-MoLE, reproduced at {results.scale.name} scale"
    return Report(title, results.scale.label, facts, [*notes_of(results), *notes], parts)


def _several(value: Any) -> bool:
    return isinstance(value, (list, tuple, set))
