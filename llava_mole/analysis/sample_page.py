"""A sample as one self-contained HTML page: no script, nothing fetched, all data escaped.

Records are hostile until shown otherwise. Everything of them is escaped, images are written anew as
PNG from the pixels that the model gets, and the page's own policy forbids whatever is not the one
style sheet below or a ``data:`` picture.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from html import escape
from pathlib import Path

from llava_mole.analysis.sample import Picture, Token, View, png
from llava_mole.analysis.sample_text import MEANING, describe, facts, lengths, names, visible

# A page of more tokens is no longer read; browsers get slow.
MAX_TOKENS = 20_000
_NAMES = {"target": "supervised", "prompt": "not supervised", "image": "image"}

STYLE = """
:root { color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #1f2328; --soft: #656d76; --line: #dfe1e4;
  --target: #c9efd3; --target-2: #b4e6c3; --target-ink: #0b4f24; --image: #e6dcfa;
  --image-ink: #4b2a91; --even: #f1f2f4; --bad: #ffe3e0; --bad-ink: #8c1d18; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181c; --card: #1e2126; --ink: #e4e6ea; --soft: #9aa2ad; --line: #343941;
  --target: #174a2b; --target-2: #1e5c36; --target-ink: #c3f3d2; --image: #3c2c66;
  --image-ink: #ddd0ff; --even: #282c33; --bad: #4f1f1c; --bad-ink: #ffcfca; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 2rem 0 .6rem; }
.soft { color: var(--soft); }
.place, code { font: .875rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.chips > span { display: inline-block; margin: .35rem .4rem 0 0; padding: .1rem .6rem;
  border: 1px solid var(--line); border-radius: 1rem; font-size: .85rem; }
.bad { background: var(--bad); color: var(--bad-ink); padding: .7rem 1rem; border-radius: .5rem;
  overflow-wrap: anywhere; }
.bar { display: block; width: 100%; height: .75rem; border-radius: .4rem; background: var(--even); }
.bar .image { fill: var(--image-ink); } .bar .prompt { fill: var(--soft); }
.bar .target { fill: #2da44e; }
.images { display: flex; flex-wrap: wrap; gap: 1.25rem; }
figure { margin: 0; width: min(21rem, 100%); }
figure img { display: block; width: 100%; height: auto;
  border: 1px solid var(--line); border-radius: .4rem; }
figcaption { font-size: .85rem; margin-top: .4rem; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: 1rem 1.15rem; }
.prompt-text { font: .93rem/1.85 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.t { border-radius: .2rem; padding: .1rem 0; }
.t:nth-child(even) { background: var(--even); }
.t.target { background: var(--target); color: var(--target-ink); }
.t.target:nth-child(even) { background: var(--target-2); }
.t.image { background: var(--image); color: var(--image-ink); padding: .1rem .4rem; }
.t:hover { outline: 2px solid currentColor; }
.chip { opacity: .65; font-size: .8em; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: 0 0 .6rem; font-size: .85rem; }
details { margin-top: 1rem; } summary { cursor: pointer; font-weight: 600; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .6rem 0 0; font-size: .85rem; }
table { border-collapse: collapse; margin-top: .6rem; font-size: .85rem; }
th, td { text-align: left; padding: .1rem .9rem .1rem .4rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } td.text { white-space: pre-wrap; }
tr.target td { background: var(--target); color: var(--target-ink); }
tr.image td { background: var(--image); color: var(--image-ink); }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; img-src data:; style-src 'sha256-{_HASH}'; base-uri 'none'; "
    "form-action 'none'"
)


def page(view: View) -> str:
    """The whole page."""
    title = visible(f"{view.id or 'no id'} ({view.dataset})")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(_body(view))
        + "\n</body>\n</html>\n"
    )


def write(view: View, path: str | os.PathLike[str]) -> None:
    """Writes the page, replacing ``path`` in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(page(view), encoding="utf-8")
    os.replace(partial, path)


def _body(view: View) -> Iterator[str]:
    place, _, *more = facts(view)
    yield f"<header><h1>{_e(view.id) or 'no id'}</h1>"
    yield f'<div class="place soft">{escape(place)}</div><div class="chips">'
    for key, value in names(view):
        yield f'<span><span class="soft">{key}</span> {_e(value)}</span>'
    yield "</div></header>"
    if view.problem:
        yield f'<h2>Cannot be trained on</h2><div class="bad">{_e(view.problem)}</div>'
    if view.tokens:
        yield "<h2>Length</h2>"
        yield _bar(view)
        yield "".join(f"<p>{escape(line)}</p>" for line in more)
    if view.pictures:
        yield '<h2>What the vision tower gets</h2><div class="images">'
        yield from map(_figure, view.pictures)
        yield "</div>"
    if view.tokens:
        yield "<h2>What the language model reads</h2>"
        yield '<div class="legend">'
        yield from (
            f'<span><span class="t {kind}">&nbsp;{_NAMES[kind]}&nbsp;</span> '
            f"{escape(text.partition(': ')[2] or text)}</span>"
            for kind, text in MEANING.items()
        )
        yield "</div>"
        shown = view.tokens[:MAX_TOKENS]
        yield '<div class="card prompt-text">' + "".join(map(_span, shown)) + "</div>"
        if rest := len(view.tokens) - len(shown):
            yield f"<p>and {rest:,} more tokens</p>"
        yield "<details><summary>Every token</summary><table><tr><th>position</th><th>id</th>"
        yield "<th>token</th><th>text</th><th>characters</th><th></th></tr>"
        yield from map(_row, shown)
        yield "</table></details>"
    if view.raw is not None:
        # As it is read, not in escapes; what is not Unicode becomes visible below.
        raw = view.raw
        raw = raw if isinstance(raw, str) else json.dumps(raw, indent=2, ensure_ascii=False)
        opened = "" if view.tokens else " open"
        yield f'<details{opened}><summary>The record</summary><pre class="card">{_e(raw)}</pre>'
        yield "</details>"


def _figure(picture: Picture) -> str:
    caption = f"<figcaption><code>{_e(picture.name)}</code><br>{_e(describe(picture))}</figcaption>"
    if picture.pixels is None:
        return f'<figure class="bad">{caption}</figure>'
    data = base64.b64encode(png(picture.pixels)).decode()
    height, width = picture.pixels.shape[:2]
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{_e(picture.name)} after preprocessing">{caption}</figure>'
    )


def _bar(view: View) -> str:
    """Image, prompt and supervised tokens as shares of the longest sequence."""
    counts = {"image": 0, "prompt": 0, "target": 0}
    for token in view.tokens:
        counts[token.kind] += token.count
    whole = max(view.max_length, view.length)
    start, parts = 0.0, []
    for kind, count in counts.items():
        share = 1000 * count / whole
        parts.append(f'<rect class="{kind}" x="{start:.2f}" width="{share:.2f}" height="10"/>')
        start += share
    return (
        f'<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(lengths(view))}">{"".join(parts)}</svg>'
    )


def _span(token: Token) -> str:
    text = _e(token.text).replace("\n", '<span class="chip">↵</span>\n')
    if token.kind == "image":
        text = f"{text} ×{token.count}"
    elif not token.text:
        # Stands for no characters (<s>), or ends one that the token before has shown.
        text = f'<span class="chip">{_e(token.name) if token.start == token.end else "·"}</span>'
    last = token.position + token.count - 1
    position = f"{token.position}" if token.count == 1 else f"{token.position} to {last}"
    title = (
        f"position {position}, id {token.id}, {visible(token.name)}, "
        f"characters {token.start} to {token.end}, {_NAMES[token.kind]}"
    )
    return f'<span class="t {token.kind}" title="{escape(title)}">{text}</span>'


def _row(token: Token) -> str:
    count = f" ×{token.count}" if token.count > 1 else ""
    return (
        f'<tr class="{token.kind}"><td class="n">{token.position}</td><td class="n">{token.id}</td>'
        f'<td><code>{_e(token.name)}</code>{count}</td><td class="text">{_e(token.text)}</td>'
        f'<td class="n">{token.start} to {token.end}</td><td>{_NAMES[token.kind]}</td></tr>'
    )


def _e(text: str) -> str:
    return escape(visible(text))
