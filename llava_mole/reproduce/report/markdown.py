"""The report as Markdown."""

from collections.abc import Iterator

from llava_mole.reproduce.report.content import Cell, Figure, Report, Table


def markdown(report: Report, pictures: str) -> str:
    """The whole report.

    Args:
        report: what to say.
        pictures: folder of the figures' files, relative to the report.
    """
    lines = [f"# {_text(report.title)}", ""]
    for note in report.notes:
        lines += [f"**{_text(note)}**" if note == report.label else _text(note), ""]
    for part in report.parts:
        lines += [f"## {_text(part.title)}", ""]
        if report.label:
            lines += [f"**{_text(report.label)}**", ""]
        lines += _figure(part, pictures) if isinstance(part, Figure) else _table(part)
        lines.append("")
    return "\n".join(lines)


def _figure(figure: Figure, pictures: str) -> Iterator[str]:
    yield f"![{_text(figure.title)}]({pictures}/{figure.name}.png)"
    yield ""
    yield _text(figure.caption)


def _table(table: Table) -> Iterator[str]:
    rows = [
        [_text(name) for name in table.header],
        *([_cell(c) for c in row] for row in table.rows),
    ]
    widths = [max(3, *(len(row[place]) for row in rows)) for place in range(len(table.header))]
    rule = [
        "-" * width if place < table.text else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    for row in [rows[0], rule, *rows[1:]]:
        shown = [
            text.ljust(width) if place < table.text else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"| {' | '.join(shown)} |"
    for note in table.notes:
        yield ""
        yield f"> {_text(note)}"


def _cell(cell: Cell) -> str:
    return "<br>".join(_text(line) for line in (cell.text, *cell.below))


def _text(text: str) -> str:
    """Plain text that stays as it is: no markup, no cell's end, no HTML."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_|[]":
        text = text.replace(character, f"\\{character}")
    return text
