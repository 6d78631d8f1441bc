"""The report's pictures."""

from collections.abc import Iterator

from llava_mole.reproduce.report.content import Figure
from llava_mole.reproduce.report.figures.curves import experts, ranks
from llava_mole.reproduce.report.figures.domains import domains
from llava_mole.reproduce.report.figures.forest import forests
from llava_mole.reproduce.report.figures.prediction import prediction
from llava_mole.reproduce.report.figures.routing import load, specialisation
from llava_mole.reproduce.report.results import Results

__all__ = ["figures", "prediction"]


def figures(results: Results) -> Iterator[Figure]:
    """Those that there is something to draw of: Figures 1 and 3, the curves, the claims."""
    for draw in (domains, load, specialisation, ranks, experts):
        if (figure := draw(results)) is not None:
            yield figure
    yield from forests(results)
