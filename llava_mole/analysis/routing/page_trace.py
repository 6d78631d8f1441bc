"""The part of the page that shows one conversation: image, words and shares, layer by layer."""

import base64
import io
import json
from collections.abc import Iterator, Sequence
from html import escape

from llava_mole.analysis.routing.paint import square_of
from llava_mole.analysis.routing.palette import angle, colour
from llava_mole.analysis.routing.tracing import Trace
from llava_mole.analysis.sample import Token
from llava_mole.eval.report.html import text

# The square's side, in pixels of the picture and in units of the drawing on it.
_PIXELS = 672
_UNITS = 1000


def trace_section(trace: Trace, places: Sequence[int]) -> Iterator[str]:
    """The section; it shows the first of ``places`` until the script says otherwise.

    Args:
        trace: what to show.
        places: layers to show, by their place among those that have experts.
    """
    first = places[0]
    yield '<section id="trace" aria-labelledby="one"><h2 id="one">One question, token by token</h2>'
    yield f"<p>{text(trace.question)}<br><strong>{text(trace.answer) or '(no answer)'}</strong></p>"
    yield _patterns(trace.num_experts)
    yield '<noscript><p class="soft">Other layers than the first need JavaScript, which is switched'
    yield " off here; the table below has every layer's shares.</p></noscript>"
    yield from _controls(trace, places)
    bare = "" if trace.grid is not None else " words-only"
    yield f'<div class="trace{bare}">'
    if trace.grid is not None:
        yield "<div>"
        yield from _map(trace, first)
        yield '<p class="where" role="status"></p></div>'
    yield "<div>"
    # In one piece: white space counts in here.
    words = "".join(_token(trace, first, token) for token in trace.tokens)
    yield f'<div class="tokens" tabindex="0" role="region" aria-label="tokens">{words}</div>'
    yield '<p class="soft">One box a token; the answer is underlined.</p></div></div>'
    yield from _layers(trace, places)
    yield "</section>"
    yield f'<script type="application/json" id="routing">{_data(trace, places)}</script>'


def _controls(trace: Trace, places: Sequence[int]) -> Iterator[str]:
    yield '<div class="controls" hidden>'
    yield f'<label>layer <input type="range" name="layer" min="0" max="{len(places) - 1}" '
    yield 'value="0"></label>'
    yield f"<output>layer {trace.layers[places[0]]}</output>"
    if trace.grid is not None:
        yield '<label>colour <input type="range" name="strength" min="0" max="100" value="55">'
        yield '</label><label><input type="checkbox" name="numbers" checked> numbers</label>'
    yield '<span class="legend" role="group" aria-label="show one expert alone">'
    for expert in range(trace.num_experts):
        yield f'<button type="button" class="e{expert}" aria-pressed="false" '
        yield f'title="show expert {expert} alone">expert {expert}</button>'
    yield "</span></div>"


def _map(trace: Trace, place: int) -> Iterator[str]:
    """The image with a rectangle a token."""
    grid, at = trace.grid, trace.square
    assert grid is not None
    file = io.BytesIO()
    square_of(trace, _PIXELS).save(file, "JPEG", quality=90, subsampling=0)
    data = base64.b64encode(file.getvalue()).decode()
    yield f'<svg class="map" viewBox="0 0 {_UNITS} {_UNITS}" role="img" '
    yield 'aria-label="the image, each token in the colour of its expert">'
    yield f'<image href="data:image/jpeg;base64,{data}" width="{_UNITS}" height="{_UNITS}"/>'
    yield '<g class="cells" fill-opacity="0.55">'
    covered = at.covered(grid).flatten().tolist()
    start = trace.image_positions.start
    boxes = [grid.box(index, _UNITS) for index in range(grid.side**2)]
    for index, (left, top, right, bottom) in enumerate(boxes):
        expert = int(trace.expert[place, start + index])
        kind = "cell" if covered[index] else "cell padding"
        yield f'<rect class="{kind}" data-p="{start + index}" x="{left}" y="{top}" '
        yield f'width="{right - left}" height="{bottom - top}" fill="{_fill(expert)}"/>'
    yield f'</g><g font-size="{min(26, 0.5 * _UNITS * grid.cell):.1f}">'
    for index, (left, top, right, bottom) in enumerate(boxes):
        expert = int(trace.expert[place, start + index])
        yield f'<text x="{(left + right) / 2}" y="{(top + bottom) / 2}">{expert}</text>'
    yield "</g>"
    scale = _UNITS / at.side
    for kind in ("frame light", "frame"):
        yield f'<rect class="{kind}" x="{at.left * scale:.1f}" y="{at.top * scale:.1f}" '
        yield f'width="{at.width * scale:.1f}" height="{at.height * scale:.1f}"/>'
    yield "</svg>"


def _token(trace: Trace, place: int, token: Token) -> str:
    if token.kind == "image":
        return f'<span class="t image">image ×{token.count}</span>'
    shown = text(token.text).replace("\n", '<span class="chip">↵</span>\n')
    if not token.text:
        # Stands for no characters (<s>), or ends one that the token before has shown.
        name = text(token.name) if token.start == token.end else "·"
        shown = f'<span class="chip">{name}</span>'
    kind = "answer" if token.kind == "target" else "question"
    expert = int(trace.expert[place, token.position])
    return f'<span class="t {kind} e{expert}" data-p="{token.position}">{shown}</span>'


def _layers(trace: Trace, places: Sequence[int]) -> Iterator[str]:
    """A table of the layers' shares; a row's button shows its layer."""
    counts = {part: trace.counts(part) for part in trace.parts}
    yield '<h3>Share of tokens per expert</h3><table class="layers"><thead><tr>'
    yield '<th scope="col"></th>'
    for part, mask in trace.parts.items():
        yield f'<th scope="col">{part} ({int(mask.sum()):,} tokens)</th>'
    yield "</tr></thead><tbody>"
    for index, place in enumerate(places):
        yield f'<tr{"" if index else " class=now"}><th scope="row">'
        yield f'<button type="button">layer {trace.layers[place]}</button></th>'
        for part in counts:
            yield f"<td>{_bar(counts[part][place].tolist())}</td>"
        yield "</tr>"
    yield "</tbody></table>"


def _bar(counts: Sequence[int]) -> str:
    total = max(sum(counts), 1)
    said = ", ".join(f"expert {k} {100 * n / total:.0f} %" for k, n in enumerate(counts) if n)
    parts, x = [], 0.0
    for expert, number in enumerate(counts):
        width = 100 * number / total
        if number:
            parts.append(
                f'<rect x="{x:.2f}%" width="{width:.2f}%" height="100%" fill="{_fill(expert)}"/>'
            )
        x += width
    drawn = f"<title>{said}</title>{''.join(parts)}"
    return f'<svg class="bar" role="img" aria-label="{said}">{drawn}</svg>'


def _fill(expert: int) -> str:
    return colour(expert) if angle(expert) is None else f"url(#stripes-{expert})"


def _patterns(num_experts: int) -> str:
    """The fills of experts whose colour is not theirs alone."""
    patterns = "".join(
        f'<pattern id="stripes-{expert}" width="12" height="12" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate({angle(expert)})"><rect width="12" height="12" '
        f'fill="{colour(expert)}"/><rect width="12" height="3" fill="#ffffff"/></pattern>'
        for expert in range(num_experts)
        if angle(expert) is not None
    )
    return f'<svg class="defs" aria-hidden="true"><defs>{patterns}</defs></svg>' if patterns else ""


def _data(trace: Trace, places: Sequence[int]) -> str:
    """What the script reads, as JSON without a character that HTML gives a meaning."""
    positions = trace.image_positions
    values = {
        "layers": [trace.layers[place] for place in places],
        "experts": [trace.expert[place].tolist() for place in places],
        "probs": [(100 * trace.prob[place]).round().int().tolist() for place in places],
        "fills": [_fill(expert) for expert in range(trace.num_experts)],
        "first": positions.start,
        "side": None if trace.grid is None else trace.grid.side,
    }
    written = json.dumps(values, separators=(",", ":"))
    assert escape(written, quote=False) == written
    return written
