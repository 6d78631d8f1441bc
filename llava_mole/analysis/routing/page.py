"""All routing pictures as one self-contained HTML page that works offline.

Names, questions and answers are hostile until shown otherwise: they are escaped, and the page's own
policy forbids whatever is not its one style sheet, its one script or a ``data:`` picture.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from llava_mole.analysis.routing.page_trace import trace_section
from llava_mole.analysis.routing.script import SCRIPT
from llava_mole.analysis.routing.style import style
from llava_mole.analysis.routing.tracing import Trace
from llava_mole.eval.report.html import document, header, text
from llava_mole.files import replace_text

# Pictures have about two of their pixels to one of the page, for sharp letters.
_SCALE = 0.58


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        heading: above it.
        caption: what it shows and how to read it.
        png: the file.
    """

    heading: str
    caption: str
    png: bytes


def write_page(
    path: Path,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    pictures: Sequence[Picture],
    num_experts: int,
    trace: Trace | None = None,
    places: Sequence[int] = (),
) -> None:
    """Writes the page, replacing ``path`` in one step.

    Args:
        path: of the page; its folder is made.
        facts: names and values below the title, as ``("run", "my_run")``.
        notes: sentences that a reader must know first.
        pictures: from top to bottom.
        num_experts: K.
        trace: one conversation, shown above the pictures.
        places: its layers to show, by their place among those that have experts.
    """
    title = "What the routers do"
    body = [*header(title, facts, notes)]
    if trace is not None:
        body += trace_section(trace, places)
    for number, picture in enumerate(pictures):
        body += _figure(number, picture)
    script = SCRIPT if trace is not None else ""
    page = document(title, "\n".join(body), script, style(num_experts))
    replace_text(Path(path), page)


def _figure(number: int, picture: Picture) -> Iterator[str]:
    data = base64.b64encode(picture.png).decode()
    name = f"picture-{number}"
    yield f'<section aria-labelledby="{name}"><h2 id="{name}">{text(picture.heading)}</h2>'
    yield f"<p>{text(picture.caption)}</p>"
    with Image.open(io.BytesIO(picture.png)) as opened:
        width, height = (round(_SCALE * side) for side in opened.size)
    yield f'<div class="picture"><img src="data:image/png;base64,{data}" width="{width}" '
    yield f'height="{height}" alt="{text(picture.heading)}"></div></section>'
