"""The quickstart's *document* set: charts, tables and pages drawn from real public tables.

Each image is drawn around one *lead* question whose answer is chosen first, evenly among its
answers; then windows of a real table are tried until the numbers in one give that answer by a
margin that an eye can see. So the numbers are real and the words alone say little. ``test`` asks
only lead questions and draws only tables that training never saw (see ``tables.py``).
"""

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from llava_mole.data.builders import drawing
from llava_mole.data.builders.drawing import COLORS, Style
from llava_mole.data.builders.store import Question, Sizes, build_once, caption, conversation
from llava_mole.data.builders.tables import Table, tables

VERSION = 1
SOURCE = "public-tables"
YES_NO = ("yes", "no")
PLACES = ("left", "middle", "right")
# Kind of image -> {question: its answers}. The order of answers has no meaning.
QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "bar chart": {
        "How many bars are there?": ("3", "4", "5", "6"),
        "Where is the highest bar?": PLACES,
        "Is the first bar higher than the last bar?": YES_NO,
        "What color are the bars?": tuple(COLORS),
    },
    "line chart": {
        "Does the line go up or down overall?": ("up", "down"),
        "Where is the peak of the line?": PLACES,
        "What color is the line?": tuple(COLORS),
    },
    "pie chart": {
        "How many slices does the pie have?": ("2", "3", "4", "5"),
        "What color is the largest slice?": tuple(COLORS),
        "Is the largest slice more than half of the pie?": YES_NO,
    },
    "table": {
        "How many columns does the table have?": ("2", "3", "4", "5"),
        "Does the table have grid lines?": YES_NO,
        "What color is the header row?": tuple(COLORS),
    },
    "page": {
        "Is the text in one column or two columns?": ("one", "two"),
        "Is there a chart on the page?": YES_NO,
        "Is the chart at the top or at the bottom of the page?": ("top", "bottom"),
    },
}
KIND = "What does the image show?"
# Windows of real numbers to try before a table is given up for an answer.
TRIES = 60
MARGIN = 0.15


def build(
    output_dir: str | Path, seed: int, sizes: Sizes, progress_position: int | None = None
) -> None:
    """Writes the set to ``output_dir``; does nothing if it is there already.

    Raises:
        ValueError: ``vega_datasets`` or ``bokeh_sampledata`` is missing.
    """
    settings = {"set": "document", "version": VERSION, "seed": seed, "sizes": vars(sizes)}
    build_once(output_dir, settings, lambda at: _produce(at, seed, sizes, progress_position))


def _produce(at: Path, seed: int, sizes: Sizes, position: int | None) -> dict[str, list[dict]]:
    leads = [(kind, text) for kind, asked in QUESTIONS.items() for text in asked]
    leads += [(kind, KIND) for kind in QUESTIONS]
    splits: dict[str, list[dict]] = {"pretrain": [], "train": [], "test": []}
    for split, size in (("train", sizes.train), ("test", sizes.test)):
        rng = random.Random(f"{seed}/{split}")
        pool = tables(split)
        for number in tqdm(range(size), desc=f"document {split}", position=position):
            kind, text = leads[number % len(leads)]
            answers = QUESTIONS[kind].get(text, (kind,))
            answer = answers[(number // len(leads)) % len(answers)]
            image, facts = _draw(kind, {text: answer}, pool, rng)
            assert facts[text] == answer, (text, answer, facts)
            name = f"document-{split}-{number}"
            file = f"images/{split}_{number:05d}.png"
            image.save(at / file)
            if split == "train" and number < sizes.pretrain:
                described = _caption(kind, facts)
                splits["pretrain"].append(caption(f"{name}-caption", file, SOURCE, described))
            asked = [text]
            if split == "train":
                asked = rng.sample(sorted(facts), min(3, len(facts)))
                # The kind is told by every other question, so it comes first.
                asked.sort(key=lambda question: question != KIND)
            questions = [Question(f"{kind}s", text, facts[text]) for text in asked]
            splits[split].append(conversation(name, file, SOURCE, questions))
    return splits


def _draw(
    kind: str, wanted: dict[str, str], pool: tuple[Table, ...], rng: random.Random
) -> tuple[Image.Image, dict[str, str]]:
    """An image of ``kind`` and the answers of all questions about it, ``wanted`` among them."""
    draw: Callable = _DRAWERS[kind]
    for _ in range(10_000):
        drawn = draw(wanted, rng.choice(pool), _style(rng), rng)
        if drawn is not None:
            image, facts = drawn
            return image, {KIND: kind, **facts}
    raise AssertionError(f"no table gives {wanted}")


def _style(rng: random.Random) -> Style:
    return Style(
        width=rng.choice((200, 224, 240)),
        height=rng.choice((180, 200, 224)),
        paper=rng.choice(((255, 255, 255), (250, 247, 238), (240, 243, 248))),
        text=rng.choice((8, 9, 10)),
        fill=rng.uniform(0.5, 0.85),
        grid=rng.random() < 0.5,
    )


def _pick(wanted: dict[str, str], text: str, answers: tuple[str, ...], rng: random.Random) -> str:
    return wanted.get(text) or rng.choice(answers)


def _bar_chart(wanted: dict[str, str], table: Table, style: Style, rng: random.Random):
    count_text, place_text, first_text, color_text = QUESTIONS["bar chart"]
    count = int(_pick(wanted, count_text, ("3", "4", "5", "6"), rng))
    color = _pick(wanted, color_text, tuple(COLORS), rng)
    for _ in range(TRIES):
        column = rng.choice(list(table.columns))
        rows = sorted(rng.sample(range(len(table.labels)), count))
        if rng.random() < 0.5:
            rows.reverse()
        heights = _scaled([table.columns[column][row] for row in rows], rng.uniform(0.15, 0.6))
        if heights is None:
            continue
        best = max(range(count), key=heights.__getitem__)
        second = max(height for index, height in enumerate(heights) if index != best)
        place = _place(best / (count - 1))
        first = "yes" if heights[0] > heights[-1] else "no"
        if heights[best] - second < MARGIN * 0.7 or abs(heights[0] - heights[-1]) < MARGIN:
            continue
        facts = {count_text: str(count), place_text: place, first_text: first, color_text: color}
        if all(facts[text] == answer for text, answer in wanted.items() if text != KIND):
            title = f"{table.title}: {column}"
            labels = [table.labels[row] for row in rows]
            return drawing.bars(style, title, labels, heights, color), facts
    return None


def _line_chart(wanted: dict[str, str], table: Table, style: Style, rng: random.Random):
    trend_text, peak_text, color_text = QUESTIONS["line chart"]
    if not table.ordered:
        return None
    color = _pick(wanted, color_text, tuple(COLORS), rng)
    for _ in range(TRIES):
        column = rng.choice(list(table.columns))
        count = rng.randint(6, min(16, len(table.labels)))
        start = rng.randrange(len(table.labels) - count + 1)
        values = _scaled(table.columns[column][start : start + count], 0.08)
        if values is None or abs(values[-1] - values[0]) < 2 * MARGIN:
            continue
        peak = max(range(count), key=values.__getitem__)
        place = _place(peak / (count - 1))
        rivals = [v for index, v in enumerate(values) if _place(index / (count - 1)) != place]
        if max(rivals) > values[peak] - MARGIN * 0.7:
            continue
        trend = "up" if values[-1] > values[0] else "down"
        facts = {trend_text: trend, peak_text: place, color_text: color}
        if all(facts[text] == answer for text, answer in wanted.items() if text != KIND):
            title = f"{table.title}: {column}"
            labels = table.labels[start : start + count]
            return drawing.lines(style, title, labels, [values], [color]), facts
    return None


def _pie_chart(wanted: dict[str, str], table: Table, style: Style, rng: random.Random):
    count_text, color_text, half_text = QUESTIONS["pie chart"]
    count = int(_pick(wanted, count_text, ("2", "3", "4", "5"), rng))
    largest = _pick(wanted, color_text, tuple(COLORS), rng)
    for _ in range(TRIES):
        column = rng.choice(list(table.columns))
        rows = rng.sample(range(len(table.labels)), count)
        values = [table.columns[column][row] for row in rows]
        if min(values) <= 0 or min(values) < 0.06 * sum(values):
            continue
        shares = [value / sum(values) for value in values]
        ranked = sorted(shares)
        if ranked[-1] - ranked[-2] < 0.08 or abs(ranked[-1] - 0.5) < 0.06:
            continue
        half = "yes" if ranked[-1] > 0.5 else "no"
        facts = {count_text: str(count), color_text: largest, half_text: half}
        if all(facts[text] == answer for text, answer in wanted.items() if text != KIND):
            colors = rng.sample([color for color in COLORS if color != largest], count)
            colors[shares.index(ranked[-1])] = largest
            title = f"{table.title}: {column}"
            return drawing.pie(style, title, shares, colors, rng.uniform(0, 360)), facts
    return None


def _table_image(wanted: dict[str, str], table: Table, style: Style, rng: random.Random):
    count_text, grid_text, color_text = QUESTIONS["table"]
    count = int(_pick(wanted, count_text, ("2", "3", "4", "5"), rng))
    if count - 1 > len(table.columns):
        return None
    grid = _pick(wanted, grid_text, YES_NO, rng)
    color = _pick(wanted, color_text, tuple(COLORS), rng)
    style = Style(**{**vars(style), "grid": grid == "yes"})
    names = rng.sample(list(table.columns), count - 1)
    size = rng.randint(4, min(8, len(table.labels)))
    start = rng.randrange(len(table.labels) - size + 1)
    rows = [
        [table.labels[row], *(f"{table.columns[name][row]:.4g}" for name in names)]
        for row in range(start, start + size)
    ]
    facts = {count_text: str(count), grid_text: grid, color_text: color}
    return drawing.table(style, table.title, ["", *names], rows, color), facts


def _page(wanted: dict[str, str], table: Table, style: Style, rng: random.Random):
    columns_text, chart_text, at_text = QUESTIONS["page"]
    columns = _pick(wanted, columns_text, ("one", "two"), rng)
    chart = "yes" if at_text in wanted else _pick(wanted, chart_text, YES_NO, rng)
    at = _pick(wanted, at_text, ("top", "bottom"), rng)
    figure = None
    facts = {columns_text: columns, chart_text: chart}
    if chart == "yes":
        drawn = _bar_chart({}, table, Style(**{**vars(style), "width": 240, "height": 140}), rng)
        if drawn is None:
            return None
        figure = drawn[0]
        facts[at_text] = at
    style = Style(**{**vars(style), "width": 176, "height": 236, "text": rng.choice((7, 8))})
    columns_drawn = 2 if columns == "two" else 1
    return drawing.page(style, table.title, table.prose, columns_drawn, figure, at), facts


_DRAWERS = {
    "bar chart": _bar_chart,
    "line chart": _line_chart,
    "pie chart": _pie_chart,
    "table": _table_image,
    "page": _page,
}


def _scaled(values, base: float) -> list[float] | None:
    """Values as shares of the plot, the lowest at ``base``; ``None`` if all are equal."""
    low, high = min(values), max(values)
    if high <= low:
        return None
    return [base + (0.95 - base) * (value - low) / (high - low) for value in values]


def _place(share: float) -> str:
    """``left``, ``middle`` or ``right`` third of the way."""
    return PLACES[min(2, int(share * 3))]


def _caption(kind: str, facts: dict[str, str]) -> str:
    """One line that says what the questions will ask about."""
    said = {text: answer for text, answer in facts.items() if text != KIND}
    values = list(said.values())
    if kind == "bar chart":
        return f"a bar chart with {values[0]} {values[3]} bars, the highest on the {values[1]}"
    if kind == "line chart":
        return f"a line chart, the {values[2]} line goes {values[0]} with its peak {values[1]}"
    if kind == "pie chart":
        return f"a pie chart with {values[0]} slices, the largest is {values[1]}"
    if kind == "table":
        return f"a table with {values[0]} columns and a {values[2]} header"
    place = f"a chart at the {values[2]}" if len(values) == 3 else "no chart"
    return f"a page with text in {values[0]} columns and {place}"
