"""The page's one style sheet and its one script."""

STYLE = """
:root { color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #1f2328; --soft: #5c646d; --line: #dfe1e4;
  --accent: #3a62c4; --note: #fdefc3; --note-ink: #6a4a00; --good: #cfe6f7; --good-ink: #0b3d60;
  --bad: #fbdcc8; --bad-ink: #7a2e00; --open: #e6e7ea; --open-ink: #3c434a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181c; --card: #1e2126; --ink: #e4e6ea; --soft: #9aa2ad; --line: #343941;
  --accent: #8fb0ff; --note: #4a3a10; --note-ink: #ffe6a3; --good: #123a57; --good-ink: #cfe8fb;
  --bad: #562a10; --bad-ink: #ffdcc4; --open: #33383f; --open-ink: #d5d9df; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 92rem; padding: 2rem 1.25rem 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.4rem 0 .6rem; }
body > p, section > p { max-width: 60rem; margin: .5rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
nav { margin: 1rem 0; font-size: .9rem; }
.chips > span { display: inline-block; margin: .35rem .4rem 0 0; padding: .1rem .6rem;
  border: 1px solid var(--line); border-radius: 1rem; font-size: .85rem; overflow-wrap: anywhere; }
.chips .soft { font-size: inherit; }
.notes, .label { background: var(--note); color: var(--note-ink); border-radius: .4rem; }
.notes { margin: 1rem 0 0; padding: .6rem 1rem; font-weight: 600; overflow-wrap: anywhere; }
.notes p { margin: .2rem 0; }
.label { display: inline-block; padding: .15rem .7rem; font-size: .85rem; font-weight: 600; }
table { border-collapse: collapse; font-size: .9rem; background: var(--card); }
th, td { text-align: left; padding: .35rem .8rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--soft); font-size: .8rem; font-weight: 600; vertical-align: bottom; }
thead button { all: unset; cursor: pointer; }
thead button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort="ascending"] button::after { content: " ▲"; }
th[aria-sort="descending"] button::after { content: " ▼"; }
tbody tr:last-child > * { border-bottom: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.short { white-space: nowrap; }
td > span { display: table; }
.short > .below { white-space: normal; }
.n > span { margin-left: auto; }
.below { color: var(--soft); font-size: .8rem; line-height: 1.35; max-width: 34rem; }
.good, .bad, .open { padding: 0 .5rem; border-radius: .3rem; white-space: nowrap; }
.good { background: var(--good); color: var(--good-ink); }
.bad { background: var(--bad); color: var(--bad-ink); font-weight: 600; }
.open { background: var(--open); color: var(--open-ink); }
.scroll { overflow-x: auto; max-width: max-content; border: 1px solid var(--line);
  border-radius: .5rem; }
figure { margin: .6rem 0 0; padding: 1rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: .5rem; max-width: max-content; overflow-x: auto; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: #4a5159; font-size: .85rem; max-width: 60rem; margin-top: .6rem; }
@media print { .scroll { overflow: visible; } nav { display: none; } }
"""

# A click on a column's heading sorts by it; a second one turns the order.
SCRIPT = """
for (const head of document.querySelectorAll("thead th")) {
  if (!head.textContent) continue;
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const row = head.parentNode, body = row.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of row.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const place = head.cellIndex;
    const key = (line) => {
      const cell = line.cells[place];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      const numbers = (typeof x === "number") - (typeof y === "number");
      // What has no number stays at the end, whatever the order.
      if (numbers) return -numbers;
      const order = typeof x === "number" ? x - y : x.localeCompare(y);
      return up ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  });
}
"""
