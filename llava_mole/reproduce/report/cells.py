"""Cells that several tables have: seeds, means, differences, trained parameters."""

from llava_mole.reproduce.intervals import Difference
from llava_mole.reproduce.report.content import NOTHING, Cell, interval, number, signed
from llava_mole.reproduce.report.results import Results
from llava_mole.reproduce.report.routers import half_width


def seeds_cell(mean: Difference | None) -> Cell:
    """How many seeds a mean is over."""
    return Cell(NOTHING) if mean is None else Cell(str(len(mean.seeds)), value=len(mean.seeds))


def mean_cell(found: Difference | None) -> Cell:
    """A mean, half of its interval below it."""
    if found is None:
        return Cell(NOTHING)
    return Cell(number(found.value), (half_width(found),), value=found.value)


def difference_cell(found: Difference | None) -> Cell:
    """A difference, its interval below it."""
    if found is None:
        return Cell(NOTHING)
    below = [interval(found.low, found.high, sign=True)]
    below += ["one seed"] if len(found.seeds) == 1 else []
    return Cell(signed(found.value), tuple(below), value=found.value)


def trained_parameters(results: Results, name: str) -> float | None:
    """Parameters that a row trains; None where none of its runs says it."""
    found = results.measured.get(name)
    values = [v["parameters"] for v in found.extras.values() if "parameters" in v] if found else []
    return values[0] if values else None


def parameters_cell(count: float | None) -> Cell:
    """How many parameters were trained."""
    return Cell(NOTHING if count is None else f"{count:,.0f}", value=count)
