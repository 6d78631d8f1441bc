"""What an evaluation's pages share: the frame with its policy, the heading, the result table.

Names, questions, answers and images are hostile until shown otherwise. What Python writes is
escaped, and the page's own policy forbids whatever is not its one style sheet, its one script or a
``data:`` picture, so nothing is ever fetched.
"""

import base64
import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from urllib.parse import urlencode

from llava_mole.eval.scores import Estimate, Line


def document(title: str, body: str, script: str = "", style: str | None = None) -> str:
    """A whole page: ``body`` is HTML, ``script`` the JavaScript that may run; both are trusted.

    ``style`` is its style sheet, an evaluation's by default.
    """
    style = asset("page.css") if style is None else style
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; "
        f"script-src {_source(script) if script else chr(39) + 'none' + chr(39)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        + body
        + (f"\n<script>{script}</script>" if script else "")
        + "\n</body>\n</html>\n"
    )


def header(title: str, facts: Sequence[tuple[str, str]], notes: Sequence[str]) -> Iterator[str]:
    """The heading, what is to be known at a glance, and notes in a box."""
    yield f'<header><h1>{text(title)}</h1><div class="chips">'
    yield from (f'<span><span class="soft">{text(key)}</span> {text(v)}</span>' for key, v in facts)
    yield "</div></header>"
    if notes:
        yield '<div class="notes">' + "".join(f"<p>{text(note)}</p>" for note in notes) + "</div>"


def results_table(
    lines: Sequence[Line],
    paper: Mapping[str, float] | None,
    paper_title: str,
    page: str = "",
    heading: str = "Results",
) -> Iterator[str]:
    """The result table under its heading.

    Args:
        lines: from top to bottom.
        paper: the paper's values by line; None has no such columns.
        paper_title: where they are printed.
        page: file that has the lines' examples; "" for the page itself.
        heading: of the table; a link to ``page`` if there is one.
    """
    name = f"results-{page}" if page else "results"
    shown = f'<a href="{escape(page)}">{text(heading)}</a>' if page else text(heading)
    strict = any(line.strict is not None for line in lines)
    groups = '<th rowspan="2" scope="col">in %</th>'
    columns = ""
    for name in ("score", "strict score")[: 1 + strict]:
        groups += f'<th colspan="2" scope="colgroup">{name}</th>'
        columns += '<th scope="col" class="n">mean</th><th scope="col">95 % interval</th>'
    if paper is not None:
        groups += f'<th colspan="2" scope="colgroup">{text(paper_title or "paper")}</th>'
        columns += '<th scope="col" class="n">printed</th><th scope="col" class="n">difference</th>'
    groups += '<th rowspan="2" scope="col" class="n">questions</th>'
    groups += '<th rowspan="2" scope="col" class="n">not asked</th>'
    scale = "0 to 100" if paper is None else "0 to 100, bar: paper"
    groups += f'<th rowspan="2" scope="col" class="picture">{scale}</th>'
    yield f'<section aria-labelledby="{escape(name)}"><h2 id="{escape(name)}">{shown}</h2>'
    yield f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{escape(name)}">'
    yield f"<table class=results><thead><tr>{groups}</tr><tr>{columns}</tr></thead><tbody>"
    yield from (_result(line, strict, paper, page) for line in lines)
    yield "</tbody></table></div></section>"


def _result(line: Line, strict: bool, paper: Mapping[str, float] | None, page: str) -> str:
    printed = None if paper is None or line.kind == "dataset" else paper.get(line.name)
    cells = f'<th scope="row">{_link(line, page)}</th>'
    cells += _estimate(line.score)
    if strict:
        cells += _estimate(line.strict)
    if paper is not None and printed is None:
        cells += '<td class="n soft">–</td>' * 2
    elif printed is not None:
        difference = f"{line.score.value - printed:+.2f}".replace("-", "−")
        cells += f'<td class="n">{float(printed)}</td><td class="n">{difference}</td>'
    cells += f'<td class="n">{line.questions:,}</td>'
    cells += f'<td class="n{" bad" if line.failed else ""}">{line.failed:,}</td>'
    cells += f'<td class="picture">{_picture(line.score, printed)}</td>'
    return f'<tr class="{escape(line.kind)}">{cells}</tr>'


def _link(line: Line, page: str) -> str:
    """The line's name, leading to its examples."""
    state = {"part": line.part} if line.part else {}
    if line.kind == "dataset":
        state["dataset"] = line.name
    fragment = urlencode(state, errors="replace")
    return f'<a href="{escape(page)}#{escape(fragment)}">{text(line.name) or "no name"}</a>'


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return '<td class="n soft">–</td><td></td>'
    interval = f"[{estimate.low:.2f}, {estimate.high:.2f}]"
    return f'<td class="n">{estimate.value:.2f}</td><td class="soft interval">{interval}</td>'


def _picture(score: Estimate, printed: float | None) -> str:
    """Mean, interval and the paper's value from 0 to 100; nothing for a sum beyond that."""
    if not 0 <= min(score.low, printed or 0) <= max(score.high, printed or 0) <= 100:
        return ""
    parts = '<rect class="track" y="6" width="100%" height="2"/><rect class="interval" y="4" '
    parts += f'x="{score.low:.2f}%" width="{score.high - score.low:.2f}%" height="6"/>'
    parts += f'<circle class="mean" cx="{score.value:.2f}%" cy="7" r="4"/>'
    if printed is not None:
        parts += f'<rect class="printed" x="{printed:.2f}%" width="2" height="14"/>'
    return f'<svg aria-hidden="true">{parts}</svg>'


def asset(name: str) -> str:
    """A file of this package as text."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    """What a content security policy calls an inline text by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def text(value: str) -> str:
    """Escaped, and what can't be seen or reorders what is read as escapes such as ``\\u202e``."""
    return escape(
        "".join(
            character
            if character in "\n\t\u200c\u200d"
            or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
            else character.encode("unicode_escape").decode("ascii")
            for character in value
        )
    )
