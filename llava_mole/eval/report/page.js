// The examples of the page: searched, filtered, sorted, and shown a hundred at a time.
// Everything in the data is hostile: rows are built of text nodes, never of markup. What can't be
// seen or reorders what is read is shown as an escape such as \u202e.
"use strict";
(() => {
  const ROWS = 100;
  // An answer beyond either is cut until one asks for more.
  const LETTERS = 280;
  const LINES = 6;
  const REFERENCES = 5;
  const INVISIBLE = /(?:(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}])+/gu;

  const { examples, thumbnails } = JSON.parse(document.getElementById("examples").textContent);
  const browser = document.getElementById("browser");
  const heading = document.getElementById("browse");
  const form = browser.querySelector("form");
  const body = browser.querySelector("tbody");
  const status = browser.querySelector("[role=status]");
  const pagers = [...browser.querySelectorAll(".pager")];
  const labels = [...browser.querySelectorAll("thead th")].map((cell) => cell.textContent);
  const hasStrict = labels.includes("strict");
  const filters = ["q", "part", "dataset", "outcome", "sort"];
  const control = (name) => form.elements.namedItem(name);
  let page = 1;

  // --- text

  const escapes = (run) => Array.from(run, (character) => {
    const code = character.codePointAt(0);
    const digits = (letter, length) => `\\${letter}${code.toString(16).padStart(length, "0")}`;
    return code < 0x100 ? digits("x", 2) : code < 0x10000 ? digits("u", 4) : digits("U", 8);
  }).join("");
  const visible = (string) => string.replace(INVISIBLE, escapes);

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.append(text);
    return element;
  }

  function appendVisible(parent, string) {
    let end = 0;
    for (const match of string.matchAll(INVISIBLE)) {
      parent.append(string.slice(end, match.index), make("span", "control", escapes(match[0])));
      end = match.index + match[0].length;
    }
    parent.append(string.slice(end));
  }

  // Where a long text is cut, its whole length if it isn't.
  function cutAt(string) {
    let end = string.length > LETTERS + 40 ? LETTERS : string.length;
    const lines = string.slice(0, end).split("\n");
    if (lines.length > LINES) end = lines.slice(0, LINES).join("\n").length;
    // Not between the two halves of a character.
    return end < string.length && /[\ud800-\udbff]/.test(string[end - 1]) ? end - 1 : end;
  }

  // A button that replaces what `show(false)` draws by what `show(true)` draws, and back.
  function toggle(label, what, show) {
    const button = make("button", "more");
    button.type = "button";
    let open = false;
    const draw = () => {
      show(open);
      button.textContent = open ? "less" : label;
      button.setAttribute("aria-label", `${button.textContent} of ${what}`);
      button.setAttribute("aria-expanded", String(open));
    };
    button.addEventListener("click", () => { open = !open; draw(); });
    draw();
    return button;
  }

  function textOf(string, what) {
    const box = make("div");
    const text = make("span", "text");
    text.dir = "auto";
    box.append(text);
    const end = cutAt(string);
    if (end === string.length) {
      appendVisible(text, string);
    } else {
      box.append(" ", toggle(`more (${string.length.toLocaleString("en")} characters)`, what, (open) => {
        text.replaceChildren();
        appendVisible(text, open ? string : `${string.slice(0, end)}…`);
      }));
    }
    return box;
  }

  // --- a row

  const scoreText = (score) => (Number.isInteger(score) ? String(score) : score.toFixed(2));
  const outcome = (score) => (score === 1 ? "right" : score === 0 ? "wrong" : "partly");

  function picture(example) {
    if (example.image < 0) return make("span", "none", "text only");
    const source = thumbnails[example.image];
    if (source === null) return make("span", "none bad", "image can't be read");
    const image = make("img");
    image.src = source;
    image.alt = `image of ${visible(example.id)}`;
    return image;
  }

  function answer(example) {
    if (example.answer === null) {
      const box = make("span", "failed-answer bad", "not asked: ");
      appendVisible(box, example.error);
      return box;
    }
    return example.answer === "" ? make("span", "small", "(empty)") : textOf(example.answer, "answer");
  }

  function references(example) {
    const distinct = [...new Set(example.references)];
    const list = make("ul");
    const items = distinct.map((reference) => {
      const item = make("li");
      item.append(textOf(reference, "accepted answer"));
      return item;
    });
    list.append(...items);
    if (items.length <= REFERENCES) return [list];
    return [list, toggle(`${items.length - REFERENCES} more`, "accepted answers", (open) => {
      items.forEach((item, index) => { item.hidden = !open && index >= REFERENCES; });
    })];
  }

  function scoreCell(score) {
    return score === null ? "–" : make("span", `score ${outcome(score)}`, scoreText(score));
  }

  function row(example) {
    const id = make("div", "id");
    appendVisible(id, example.id);
    const names = [example.part, example.dataset].filter(Boolean).map((name) => {
      const box = make("div", "small");
      appendVisible(box, name);
      return box;
    });
    const contents = [
      [picture(example)], [id, ...names], [textOf(example.question, "question")],
      [answer(example)], references(example), [scoreCell(example.score)],
    ];
    if (hasStrict) contents.push([scoreCell(example.strict)]);
    const line = make("tr");
    line.setAttribute("role", "row");
    contents.forEach((content, column) => {
      const cell = make(column === 1 ? "th" : "td");
      cell.setAttribute("role", column === 1 ? "rowheader" : "cell");
      if (column === 1) cell.scope = "row";
      if (column > 1) cell.dataset.label = labels[column];
      cell.append(...content);
      line.append(cell);
    });
    return line;
  }

  // --- which rows

  const haystacks = examples.map((example) => visible([
    example.id, example.question, example.answer ?? example.error, ...example.references,
  ].join("\n")).toLowerCase());

  const hasOutcome = {
    "": () => true,
    right: (example) => example.score === 1,
    wrong: (example) => example.score === 0,
    partly: (example) => example.score > 0 && example.score < 1,
    disagree: (example) => example.strict !== null && example.strict !== example.score,
    failed: (example) => example.answer === null,
  };
  const length = (example) => (example.answer === null ? 0 : example.answer.length);
  const orders = {
    low: (a, b) => examples[a].score - examples[b].score,
    high: (a, b) => examples[b].score - examples[a].score,
    short: (a, b) => length(examples[a]) - length(examples[b]),
    long: (a, b) => length(examples[b]) - length(examples[a]),
  };

  function matching() {
    const words = control("q").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [part, dataset, kept] = ["part", "dataset", "outcome"].map((name) => control(name).value);
    const found = [];
    examples.forEach((example, index) => {
      if ((part === "" || example.part === part)
        && (dataset === "" || example.dataset === dataset)
        && hasOutcome[kept](example)
        && words.every((word) => haystacks[index].includes(word))) found.push(index);
    });
    const order = control("sort").value;
    // Sorting is stable: equals stay as asked.
    return order ? found.sort(orders[order]) : found;
  }

  // --- the page

  function fill(name, among) {
    const select = control(name);
    const chosen = select.value;
    const names = [...new Set(among.map((example) => example[name]))].filter(Boolean);
    select.replaceChildren(new Option("all", ""), ...names.map((one) => new Option(visible(one), one)));
    select.value = names.includes(chosen) ? chosen : "";
    select.parentElement.hidden = names.length === 0;
  }

  // The data sets to choose among are the chosen part's.
  function fillDatasets() {
    const part = control("part").value;
    fill("dataset", examples.filter((example) => part === "" || example.part === part));
  }

  function show() {
    const found = matching();
    const pages = Math.max(1, Math.ceil(found.length / ROWS));
    page = Math.min(Math.max(1, page), pages);
    const rows = found.slice((page - 1) * ROWS, page * ROWS).map((index) => row(examples[index]));
    if (rows.length === 0) {
      const cell = make("td", "empty", "No example matches.");
      cell.colSpan = labels.length;
      rows.push(make("tr", "", cell));
    }
    body.replaceChildren(...rows);
    const mean = found.reduce((sum, index) => sum + examples[index].score, 0) / found.length;
    status.textContent = `${found.length.toLocaleString("en")} of ${examples.length.toLocaleString("en")}`
      + (found.length ? `, mean score ${(100 * mean).toFixed(2)} %` : "");
    for (const pager of pagers) {
      const [previous, next] = pager.querySelectorAll("button");
      // Not disabled, which would take the focus away at the last page.
      previous.setAttribute("aria-disabled", String(page === 1));
      next.setAttribute("aria-disabled", String(page === pages));
      pager.querySelector("span").textContent = `page ${page} of ${pages}`;
      pager.hidden = pages === 1;
    }
  }

  // --- the address keeps the state, so that a view can be shared

  function write() {
    const state = new URLSearchParams();
    for (const name of filters) if (control(name).value) state.set(name, control(name).value);
    if (page > 1) state.set("page", page);
    history.replaceState(null, "", `#${state}`);
  }

  function choose(name, value) {
    control(name).value = value;
    // A select has no option of a name that this page does not know.
    if (control(name).selectedIndex === -1) control(name).value = "";
  }

  function read() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const name of filters) {
      if (name === "dataset") fillDatasets();
      choose(name, state.get(name) ?? "");
    }
    page = Number.parseInt(state.get("page"), 10) || 1;
    show();
  }

  function change(newPage) {
    page = newPage;
    show();
    write();
  }

  let typing;
  form.addEventListener("input", (event) => {
    clearTimeout(typing);
    if (event.target.name === "part") fillDatasets();
    typing = setTimeout(change, event.target.name === "q" ? 150 : 0, 1);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("clear").addEventListener("click", () => {
    for (const name of filters) control(name).value = "";
    fillDatasets();
    change(1);
    control("q").focus();
  });
  pagers.forEach((pager, below) => {
    [-1, 1].forEach((step, index) => {
      pager.querySelectorAll("button")[index].addEventListener("click", () => {
        change(page + step);
        if (below) heading.scrollIntoView();
      });
    });
  });
  // A link of the result table, or an address typed by hand.
  window.addEventListener("hashchange", () => {
    read();
    heading.focus();
  });

  fill("part", examples);
  read();
  browser.hidden = false;
})();
