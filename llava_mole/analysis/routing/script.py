"""The routing page's one script: which layer is shown, how strongly, and which expert alone.

Cells and tokens lie in the page already, with their position in the sequence as ``data-p``; the
script only gives them the class and the colour of the expert that the chosen layer sent them to.
"""

SCRIPT = """
'use strict';
const data = JSON.parse(document.getElementById('routing').textContent);
const root = document.getElementById('trace');
const find = (selector) => root.querySelector(selector);
const all = (selector) => [...root.querySelectorAll(selector)];
const cells = all('.cell'), numbers = all('.map text'), tokens = all('.t[data-p]');
const rows = all('.layers tbody tr'), buttons = all('.legend button');
const slider = find('[name=layer]'), where = find('.where'), map = find('.map');
let now = Number(slider.value), only = null;

function show(place) {
  now = place;
  slider.value = place;
  find('output').textContent = `layer ${data.layers[place]}`;
  const experts = data.experts[place];
  cells.forEach((cell, index) => {
    const expert = experts[cell.dataset.p];
    cell.setAttribute('fill', data.fills[expert]);
    cell.classList.toggle('dim', only !== null && only !== expert);
    numbers[index].textContent = expert;
  });
  for (const token of tokens) {
    const expert = experts[token.dataset.p];
    token.classList.remove(...[...token.classList].filter((name) => /^e\\d+$/.test(name)));
    token.classList.add(`e${expert}`);
    token.classList.toggle('dim', only !== null && only !== expert);
    token.title = said(token.dataset.p);
  }
  rows.forEach((row, index) => row.classList.toggle('now', index === place));
}

function said(position) {
  return `expert ${data.experts[now][position]}, probability ${data.probs[now][position]} %`;
}

slider.addEventListener('input', () => show(Number(slider.value)));
rows.forEach((row, index) =>
  row.querySelector('button').addEventListener('click', () => show(index)));
buttons.forEach((button, expert) => button.addEventListener('click', () => {
  only = only === expert ? null : expert;
  buttons.forEach((other, index) => other.setAttribute('aria-pressed', String(only === index)));
  show(now);
}));
if (map) {
  const strength = find('[name=strength]'), bare = find('[name=numbers]');
  const tint = () => find('.cells').setAttribute('fill-opacity', strength.value / 100);
  strength.addEventListener('input', tint);
  tint();
  const count = () => map.classList.toggle('bare', !bare.checked);
  bare.addEventListener('change', count);
  count();
  map.addEventListener('pointerover', (event) => {
    const cell = event.target.closest('.cell');
    if (!cell) return;
    const index = cell.dataset.p - data.first, side = data.side;
    const place = `row ${Math.floor(index / side)}, column ${index % side}`;
    const padding = cell.classList.contains('padding') ? ' (padding)' : '';
    where.textContent = `${place}${padding}: ${said(cell.dataset.p)}`;
  });
}
find('.controls').hidden = false;
show(now);
"""
