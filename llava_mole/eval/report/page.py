"""One benchmark's evaluation as a self-contained HTML page: the results and every example.

Questions, answers and images are hostile until shown otherwise. What Python writes is escaped; the
examples lie in the page as JSON, which nothing executes, and ``page.js`` shows them as text nodes;
images are thumbnails written anew. The page's own policy forbids whatever is not its one style
sheet, its one script or a ``data:`` picture, so nothing is ever fetched.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_mole.eval.report.html import asset, document, header, results_table
from llava_mole.eval.report.thumbnails import thumbnails
from llava_mole.eval.scores import Line, Scored
from llava_mole.files import replace_text

_OUTCOMES = {
    "right": "right (score 1)",
    "wrong": "wrong (score 0)",
    "partly": "partly right",
    "disagree": "published and strict disagree",
    "failed": "not asked",
}
_ORDERS = {
    "": "as asked",
    "low": "lowest score first",
    "high": "highest score first",
    "short": "shortest answer first",
    "long": "longest answer first",
}


def write_page(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    lines: Sequence[Line],
    scored: Sequence[Scored],
    paper: Mapping[str, float] | None = None,
    paper_title: str = "",
    progress: bool = False,
) -> None:
    """Writes the page, replacing ``path`` in one step.

    Args:
        path: of the page; its folder is made.
        title: heading of the page.
        facts: names and values below it, as ``("model", "tiny")``.
        notes: sentences that a reader must know before the numbers.
        lines: the result table from top to bottom.
        scored: the examples, in the order in which they were asked.
        paper: the paper's printed values by name of a total's or a part's line; None shows none.
        paper_title: where they are printed, as ``"paper, Table 2 row 13"``.
        progress: whether to show a bar while the images are read.
    """
    body = [
        *header(title, facts, notes),
        *results_table(lines, paper, paper_title),
        *_examples(scored),
        f'<script type="application/json" id="examples">{_data(scored, progress)}</script>',
    ]
    replace_text(Path(path), document(title, "\n".join(body), asset("page.js")))


def _examples(scored: Sequence[Scored]) -> Iterator[str]:
    strict = any(one.strict is not None for one in scored)
    outcomes = {"": "all"} | _OUTCOMES
    if not strict:
        del outcomes["disagree"]
    yield '<section aria-labelledby="browse"><h2 id="browse" tabindex="-1">Examples</h2>'
    yield f"<noscript><p class=notes>The table of {len(scored):,} examples needs JavaScript, "
    yield "which is switched off here; the page works without a network.</p></noscript>"
    yield '<div id="browser" hidden><form role="search" autocomplete="off">'
    yield '<label class="wide">search <input type="search" name="q" spellcheck="false" '
    yield 'placeholder="words in question, answers or id"></label>'
    yield '<label>part <select name="part"></select></label>'
    yield '<label>data set <select name="dataset"></select></label>'
    yield f'<label>outcome <select name="outcome">{_options(outcomes)}</select></label>'
    yield f'<label>order <select name="sort">{_options(_ORDERS)}</select></label>'
    yield '<button type="button" id="clear">clear</button></form>'
    yield '<div class="above"><p role="status"></p>'
    yield from _pager("pages, above the table")
    yield '</div><table class="examples" role="table"><thead role="rowgroup"><tr role="row">'
    columns = ["image", "example", "question", "answer", "accepted answers", "score"]
    for column in columns + ["strict"] * strict:
        yield f'<th scope="col" role="columnheader">{column}</th>'
    yield '</tr></thead><tbody role="rowgroup"></tbody></table>'
    yield from _pager("pages, below the table")
    yield "</div></section>"


def _options(options: Mapping[str, str]) -> str:
    return "".join(f'<option value="{key}">{name}</option>' for key, name in options.items())


def _pager(name: str) -> Iterator[str]:
    yield f'<nav class="pager" aria-label="{name}"><button type="button">← previous</button>'
    yield '<span></span><button type="button">next →</button></nav>'


def _data(scored: Sequence[Scored], progress: bool) -> str:
    """The examples as JSON that no HTML parser finds an end or a comment in, pure ASCII."""
    pictures, indices = thumbnails(scored, progress)
    data = {
        "thumbnails": [
            None
            if picture is None
            else "data:image/jpeg;base64," + base64.b64encode(picture).decode()
            for picture in pictures
        ],
        "examples": [_example(one, index) for one, index in zip(scored, indices, strict=True)],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _example(one: Scored, image: int) -> dict[str, Any]:
    question, answer = one.question, one.answer
    return {
        "image": image,
        "id": question.id,
        "part": question.part,
        "dataset": question.dataset,
        "question": question.text,
        "answer": answer.prediction,
        "error": answer.error,
        "references": question.references,
        "score": one.score,
        "strict": one.strict,
    }
