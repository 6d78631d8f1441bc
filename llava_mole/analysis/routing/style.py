"""The routing page's one style sheet."""

from llava_mole.analysis.routing.palette import angle, colour, ink

_BASE = """
:root { color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #1f2328; --soft: #5c646d; --line: #dfe1e4;
  --even: #f1f2f4; --accent: #3a62c4; --note: #fdefc3; --note-ink: #6a4a00; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181c; --card: #1e2126; --ink: #e4e6ea; --soft: #9aa2ad; --line: #343941;
  --even: #282c33; --accent: #8fb0ff; --note: #4a3a10; --note-ink: #ffe6a3; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 2rem 1.25rem 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .3rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .4rem; }
p { margin: .3rem 0 .7rem; max-width: 50rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.chips > span { display: inline-block; margin: .35rem .4rem 0 0; padding: .1rem .6rem;
  border: 1px solid var(--line); border-radius: 1rem; font-size: .85rem; overflow-wrap: anywhere; }
.notes { background: var(--note); color: var(--note-ink); margin: 1rem 0 0;
  padding: .6rem 1rem; border-radius: .5rem; overflow-wrap: anywhere; }
.notes p { margin: .2rem 0; }
.picture { margin: .6rem 0 0; padding: 1rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: .5rem; overflow-x: auto; }
.picture img { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.trace { display: grid; gap: 1.2rem 1.6rem; align-items: start; margin-top: .8rem;
  grid-template-columns: minmax(0, 31rem) minmax(0, 1fr); }
.trace.words-only { grid-template-columns: minmax(0, 1fr); }
@media (max-width: 56rem) { .trace { grid-template-columns: minmax(0, 1fr); } }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: center;
  padding: .6rem .9rem; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card); font-size: .9rem; }
.controls label { display: flex; gap: .5rem; align-items: center; }
.controls output { min-width: 5.2rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: .4rem; }
.legend button { font: inherit; font-size: .85rem; padding: .1rem .6rem; cursor: pointer;
  border: 2px solid transparent; border-radius: .3rem; }
.legend button[aria-pressed="true"] { border-color: var(--ink); }
.map { display: block; width: 100%; height: auto; border: 1px solid var(--line);
  border-radius: .3rem; background: #777777; }
.map .cell { stroke: #ffffff; stroke-opacity: .35; stroke-width: 1; }
.map .cell.padding { opacity: .45; }
.map .dim, .tokens .dim { opacity: .08; }
.map .frame { fill: none; stroke: #000000; stroke-width: 3; }
.map .frame.light { stroke: #ffffff; stroke-width: 5; stroke-opacity: .8; }
.map text { fill: #ffffff; stroke: #000000; stroke-width: .16em; paint-order: stroke;
  text-anchor: middle; dominant-baseline: central; pointer-events: none; font-weight: 600;
  font-family: system-ui, sans-serif; }
.map.bare text { display: none; }
.where { min-height: 1.5em; margin: .3rem 0; font-size: .85rem; color: var(--soft);
  font-variant-numeric: tabular-nums; }
.tokens { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; font: .9rem/2 ui-monospace, "SF Mono", Menlo, Consolas,
  "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; white-space: pre-wrap;
  max-height: 24rem; overflow-y: auto; }
.t { border-radius: .2rem; padding: .12rem .18rem; margin-right: 1px; }
.t.image { background: var(--even); color: var(--soft); }
.t.answer { border-bottom: 3px solid var(--ink); border-radius: .2rem .2rem 0 0; }
.t:hover { outline: 2px solid var(--ink); }
.chip { opacity: .75; }
.layers { border-collapse: collapse; width: 100%; font-size: .85rem; }
.layers th, .layers td { padding: .12rem .5rem .12rem 0; text-align: left; font-weight: 400; }
.layers thead th { color: var(--soft); }
.layers th[scope="row"] { width: 1%; }
.layers button { font: inherit; cursor: pointer; background: none; color: inherit;
  border: 1px solid transparent; border-radius: .3rem; padding: 0 .5rem; white-space: nowrap; }
.layers button:hover { background: var(--even); }
.layers tr.now button { border-color: var(--ink); font-weight: 600; }
.bar { display: block; width: 100%; height: .95rem; border-radius: .2rem; }
.defs { position: absolute; width: 0; height: 0; }
"""


def style(num_experts: int) -> str:
    """The style sheet with a class ``e<k>`` for each of K experts."""
    return _BASE + "\n".join(map(_expert, range(num_experts))) + "\n"


def _expert(expert: int) -> str:
    rule = f"background-color: {colour(expert)}; color: {ink(expert)};"
    if (turned := angle(expert)) is not None:
        rule += (
            f" background-image: repeating-linear-gradient({turned}deg, #ffffff66 0 2px, "
            "transparent 2px 7px);"
        )
    return f".e{expert} {{ {rule} }}"
