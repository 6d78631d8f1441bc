r"""The report as a LaTeX document: booktabs tables that break over pages, and the figures.

It compiles with pdflatex and packages of every distribution; a table can be taken out of it as it
is. Figures whose file is not there are left out.
"""

import unicodedata
from collections.abc import Iterator

from llava_mole.reproduce.report.content import Cell, Figure, Report, Table

_PREAMBLE = r"""\documentclass[10pt,landscape]{article}
\usepackage[a3paper,landscape,margin=15mm]{geometry}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{array,booktabs,longtable,graphicx}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\sloppy
"""
# Millimetres: the text, a letter of a footnote, the gap of columns, and where words may wrap.
_PAGE, _LETTER, _GAP, _WRAPS = 385.0, 1.55, 4.3, 50.0
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"'",
    # A row of a table that begins with one would take it for an option of the line's end.
    "[": "{[}",
    "]": "{]}",
    "*": r"{*}",
    "−": r"$-$",
    "–": r"--",
    "—": r"---",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "λ": r"$\lambda$",
    "α": r"$\alpha$",
    "→": r"$\to$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "’": "'",
    "“": "``",
    "”": "''",
}


def latex(report: Report, pictures: str) -> str:
    """The whole document.

    Args:
        report: what to say.
        pictures: folder of the figures' files, relative to the document.
    """
    lines = [_PREAMBLE + r"\begin{document}", rf"\section*{{{escape(report.title)}}}"]
    for note in report.notes:
        shown = escape(note)
        lines += [rf"\textbf{{{shown}}}" if note == report.label else shown, ""]
    for part in report.parts:
        if isinstance(part, Figure):
            lines += [*_figure(part, pictures, report.label), ""]
        else:
            lines += [*_table(part, report.label), ""]
    return "\n".join([*lines, r"\end{document}", ""])


def escape(text: str) -> str:
    """Plain text as LaTeX; a character that no font of it has as its number, ``U+1F600``."""
    return "".join(_character(character) for character in " ".join(text.split()))


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character if character.isprintable() else ""
    # Latin letters with accents are in T1 fonts.
    if "LATIN" in unicodedata.name(character, "") and ord(character) < 0x180:
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"


def _figure(figure: Figure, pictures: str, label: str) -> Iterator[str]:
    file = f"{pictures}/{figure.name}.png"
    yield rf"\IfFileExists{{{file}}}{{\begin{{figure}}[htbp]\centering"
    caption = f"{_caption(figure.title, label)} {escape(figure.caption)}"
    yield rf"\parbox{{0.9\linewidth}}{{{caption}}}\par\medskip"
    size = r"width=0.9\linewidth,height=0.75\textheight,keepaspectratio"
    yield rf"\includegraphics[{size}]{{{file}}}"
    yield r"\end{figure}}{}"


def _table(table: Table, label: str) -> Iterator[str]:
    columns = _columns(table)
    header = " & ".join(
        rf"\multicolumn{{1}}{{{_side(column)}}}{{{escape(name)}}}"
        for name, column in zip(table.header, columns, strict=True)
    )
    yield r"{\footnotesize"
    yield rf"\begin{{longtable}}{{{''.join(columns)}}}"
    # A box without width, or a long label would stretch the last column.
    caption = rf"\makebox[0pt][l]{{{_caption(table.title, label)}}}"
    yield rf"\multicolumn{{{len(table.header)}}}{{@{{}}l}}{{{caption}}} \\"
    yield r"\toprule"
    yield header + r" \\"
    yield r"\midrule"
    yield r"\endhead"
    yield r"\bottomrule"
    yield r"\endfoot"
    for row in table.rows:
        yield " & ".join(map(_cell, row, columns)) + r" \\[1pt]"
    yield r"\end{longtable}"
    yield r"}"
    yield from (escape(note) + "\n" for note in table.notes)


def _cell(cell: Cell, column: str) -> str:
    lines = [escape(cell.text), *(rf"\scriptsize {escape(line)}" for line in cell.below)]
    if len(lines) == 1:
        return lines[0]
    if _side(column) != column:
        return r" \newline ".join(lines)
    stacked = r" \\ ".join(lines)
    return rf"\begin{{tabular}}[t]{{@{{}}{column}@{{}}}}{stacked}\end{{tabular}}"


def _side(column: str) -> str:
    """What a column is aligned to."""
    return column if column in "lr" else "l"


def _columns(table: Table) -> list[str]:
    """Numbers to the right, words to the left; the longest words wrap where the page is narrow."""
    lines = [
        [line for row in table.rows for line in (row[place].text, *row[place].below)]
        for place in range(len(table.header))
    ]
    widths = [
        _LETTER * max(map(len, [name, *found])) + _GAP
        for name, found in zip(table.header, lines, strict=True)
    ]
    kept = [w if place >= table.text or w <= _WRAPS else 0 for place, w in enumerate(widths)]
    free, wanted = _PAGE - sum(kept), sum(widths) - sum(kept)
    shown = []
    for place, (width, keeps) in enumerate(zip(widths, kept, strict=True)):
        if keeps or wanted <= free:
            shown.append("l" if place < table.text else "r")
        else:
            part = max(_WRAPS / 2, free * width / wanted) - _GAP
            shown.append(rf">{{\raggedright\arraybackslash}}p{{{part:.0f}mm}}")
    return shown


def _caption(title: str, label: str) -> str:
    bold = rf"\textbf{{{escape(title)}.}}"
    return rf"{bold} \textit{{{escape(label)}}}" if label else bold
