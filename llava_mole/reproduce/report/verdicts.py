"""The claims' verdicts as tables: all of them at a glance, then each with its comparisons."""

from collections import Counter
from collections.abc import Iterator

from llava_mole.reproduce import verdict
from llava_mole.reproduce.judge import Judgement, Outcome, Printed
from llava_mole.reproduce.report.content import (
    NOTHING,
    Cell,
    Table,
    interval,
    listed,
    number,
    signed,
)
from llava_mole.reproduce.report.results import Results

TONES = {
    verdict.SUPPORTED: "good",
    verdict.NOT_SUPPORTED: "bad",
    verdict.UNDECIDED: "open",
}
# So many failing comparisons are named in the table at a glance; the others are counted.
_NAMED = 3


def claims_table(results: Results) -> Table:
    """One line a claim: what it says, its verdict by print, its verdict as measured."""
    rows = [
        [
            Cell(one.name),
            Cell(one.claim.text, (one.claim.source,)),
            _by_print(results, one),
            _measured(results, one),
            Cell("–".join(dict.fromkeys(map(str, one.seeds))) or NOTHING),
        ]
        for one in results.judgements
    ]
    header = ["claim", "what it says", "by print", "measured", "seeds"]
    return Table("claims", "The claims", header, rows, text=4)


def comparisons_table(results: Results, judgement: Judgement) -> Table:
    """One line a comparison of one claim, with its interval."""
    controls = any(one.control for one in judgement.outcomes)
    header = ["comparison", "column", "expected"]
    header += ["by print"] if results.comparable else []
    header += ["measured", "seeds", "p (sign flips)", "verdict"]
    header += ["equal parameters instead"] if controls else []
    printed = {(one.pair.terms, one.pair.column, one.pair.expect): one for one in judgement.printed}
    rows = []
    for one in judgement.outcomes:
        row = [
            Cell(results.compared(one.pair)),
            Cell(one.pair.column),
            Cell(expected(one.pair.expect, one.pair.margin)),
        ]
        if results.comparable:
            row.append(_print(printed.get((one.pair.terms, one.pair.column, one.pair.expect))))
        row += [*_difference(one), _verdict(one)]
        if controls:
            found = one.control
            row.append(
                Cell(NOTHING)
                if found is None
                else Cell(
                    f"{signed(found.value)} {interval(found.low, found.high, sign=True)}",
                    value=found.value,
                )
            )
        rows.append(row)
    unit = "Differences are in the column's points"
    if any(one.pair.quantity for one in judgement.outcomes):
        unit += "; of memory, in per cent of the row that is compared against"
    notes = [f"{judgement.claim.text} ({judgement.claim.source}.)", f"{unit}."]
    if results.scale.name in judgement.claim.seeds:
        notes += _seeds(judgement)
    if judgement.missing:
        notes.append(_lacking(results, judgement))
    title = f"{judgement.name}: {judgement.said}"
    return Table(f"claim-{judgement.name}", title, header, rows, notes, 3)


def expected(expect: str, margin: float) -> str:
    """``> −2.0``: where the difference is expected."""
    shown = number(margin, 1)
    return {
        "above": "> 0",
        "below": "< 0",
        "not_below": f"> −{shown}",
        "not_above": f"< {shown}",
        "within": f"within ±{shown}",
    }[expect]


def _seeds(judgement: Judgement) -> list[str]:
    found = {seed for one in judgement.outcomes if one.difference for seed in one.difference.seeds}
    return [f"Judged by seeds {listed(list(map(str, sorted(found))))}."] if found else []


def _by_print(results: Results, judgement: Judgement) -> Cell:
    failing = [one for one in judgement.printed if one.verdict == verdict.NOT_SUPPORTED]
    below = []
    if failing:
        fail = "comparison fails" if len(failing) == 1 else "comparisons fail"
        below.append(f"{len(failing)} {fail}, of {len(judgement.printed)}")
        worst = sorted(failing, key=_miss, reverse=True)
        below += [
            f"{results.compared(one.pair)}, {one.pair.column}: {signed(one.difference)}, expected "
            f"{expected(one.pair.expect, one.pair.margin)}"
            for one in worst[:_NAMED]
            if one.difference is not None
        ]
        below += _more(len(worst))
    return Cell(judgement.by_print, tuple(below), TONES.get(judgement.by_print, ""))


def _measured(results: Results, judgement: Judgement) -> Cell:
    counts = Counter(one.verdict for one in judgement.outcomes)
    below = [
        ", ".join(
            f"{counts[name]} {name}"
            for name in (*TONES, verdict.NOT_MEASURED)
            if counts[name] and len(counts) > 1
        )
    ]
    failing = [one for one in judgement.outcomes if one.verdict == verdict.NOT_SUPPORTED]
    failing.sort(key=lambda one: 1.0 if one.against is None else one.against)
    below += [
        f"{results.compared(one.pair)}, {one.pair.column}: {signed(one.difference.value)} "
        f"{interval(one.difference.low, one.difference.high, sign=True)}{_holm(one)}"
        for one in failing[:_NAMED]
        if one.difference is not None
    ]
    below += _more(len(failing))
    if judgement.missing:
        below.append(_lacking(results, judgement))
    tone = TONES.get(judgement.verdict, "")
    return Cell(judgement.said, tuple(line for line in below if line), tone)


def _difference(one: Outcome) -> Iterator[Cell]:
    """Difference and interval; seeds and their signs; p."""
    found = one.difference
    if found is None:
        yield from (Cell(NOTHING),) * 3
        return
    text = f"{signed(found.value)} {interval(found.low, found.high, sign=True)}"
    yield Cell(text, value=found.value)
    above, below, equal = found.signs
    signs = f"{above} above, {below} below" + (f", {equal} equal" if equal else "")
    several = len(found.seeds) > 1
    yield Cell(str(len(found.seeds)), (signs,) if several else (), value=len(found.seeds))
    yield Cell(NOTHING) if found.flips is None else Cell(p_value(found.flips), value=found.flips)


def _verdict(one: Outcome) -> Cell:
    below = []
    if one.verdict == verdict.NOT_SUPPORTED:
        below.append(_holm(one).lstrip(", "))
    if one.negligible and one.pair.expect in ("above", "below"):
        below.append(f"smaller than ±{number(one.pair.margin, 1)}")
    return Cell(one.said, tuple(below), TONES.get(one.verdict, ""))


def _print(one: Printed | None) -> Cell:
    if one is None or one.difference is None:
        return Cell(NOTHING)
    return Cell(signed(one.difference), (one.verdict,), value=one.difference)


def _holm(one: Outcome) -> str:
    return "" if one.against is None else f", p (Holm) {p_value(one.against)}"


def p_value(p: float) -> str:
    """``0.012``; ``< 0.001`` below that."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _miss(one: Printed) -> float:
    """By how many margins a printed difference misses what is expected."""
    if one.difference is None:
        return 0.0
    unit = one.pair.margin or 1.0
    bound = 0.0 if one.pair.expect in ("above", "below") else one.pair.margin
    return (abs(one.difference) - bound) / unit


def _more(number: int) -> list[str]:
    return [f"and {number - _NAMED} more"] if number > _NAMED else []


def _lacking(results: Results, judgement: Judgement) -> str:
    return f"Not measured: {listed([results.title(name) for name in judgement.missing])}."
