"""The report as one self-contained page that works offline.

What is written is escaped, and the page's own policy forbids whatever is not its one style sheet,
its one script or a ``data:`` picture.
"""

import base64
from collections.abc import Iterator
from html import escape

from llava_mole.eval.report.html import document, header, text
from llava_mole.reproduce.report.content import Cell, Figure, Report, Table
from llava_mole.reproduce.report.page import SCRIPT, STYLE

# A row's name of so many letters stays on one line.
_SHORT = 34


def html(report: Report) -> str:
    """The whole page."""
    body = [*header(report.title, report.facts, [report.label] if report.label else [])]
    body += [f"<p>{text(note)}</p>" for note in report.notes if note != report.label]
    # A claim's figure stands below its table.
    linked = [
        part for part in report.parts if not part.name.startswith("claim-") or _is_table(part)
    ]
    body.append("<nav>" + " · ".join(map(_link, linked)) + "</nav>")
    for part in report.parts:
        body.append(f'<section aria-labelledby="{_id(part)}">')
        body.append(f'<h2 id="{_id(part)}">{text(part.title)}</h2>')
        if report.label:
            body.append(f'<p class="label">{text(report.label)}</p>')
        body += _figure(part) if isinstance(part, Figure) else _table(part)
        body.append("</section>")
    return document(report.title, "\n".join(body), SCRIPT, STYLE)


def _figure(figure: Figure) -> Iterator[str]:
    data = base64.b64encode(figure.png).decode()
    yield f'<figure><img src="data:image/png;base64,{data}" alt="{text(figure.title)}">'
    yield f"<figcaption>{text(figure.caption)}</figcaption></figure>"


def _table(table: Table) -> Iterator[str]:
    yield f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{_id(table)}">'
    yield "<table><thead><tr>"
    for place, name in enumerate(table.header):
        yield f'<th scope="col"{_number(table, place)}>{text(name)}</th>'
    yield "</tr></thead><tbody>"
    for row in table.rows:
        yield "<tr>" + "".join(_cell(table, *item) for item in enumerate(row)) + "</tr>"
    yield "</tbody></table></div>"
    yield from (f'<p class="soft">{text(note)}</p>' for note in table.notes)


def _cell(table: Table, place: int, cell: Cell) -> str:
    shown = f'<span class="{escape(cell.tone)}">{text(cell.text)}</span>' if cell.tone else ""
    lines = [shown or text(cell.text)]
    lines += [f'<span class="below">{text(line)}</span>' for line in cell.below]
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    kind = _number(table, place)
    if not kind and len(cell.text) <= _SHORT:
        kind = ' class="short"'
    return f"<td{kind}{value}>{''.join(lines)}</td>"


def _number(table: Table, place: int) -> str:
    return "" if place < table.text else ' class="n"'


def _link(part: Table | Figure) -> str:
    return f'<a href="#{_id(part)}">{text(part.title)}</a>'


def _id(part: Table | Figure) -> str:
    return f"{'table' if _is_table(part) else 'figure'}-{escape(part.name)}"


def _is_table(part: Table | Figure) -> bool:
    return isinstance(part, Table)
