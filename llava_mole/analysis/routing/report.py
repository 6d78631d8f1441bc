"""All there is to say about a run's routing, written as pictures, numbers and one page.

Beside ``routing.png`` stand ``routing.json`` and, each where there is something to show, a picture
and its numbers under ``routing.kinds``, ``routing.sets``, ``routing.training`` and
``routing.image``; ``routing.html`` holds all of them.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava_mole.analysis.routing.comparison import SHUFFLES, Comparison, compare
from llava_mole.analysis.routing.counts import Counts
from llava_mole.analysis.routing.draw_compare import draw_comparison
from llava_mole.analysis.routing.draw_load import draw_kinds, draw_load
from llava_mole.analysis.routing.draw_trace import draw_trace, shown_places
from llava_mole.analysis.routing.draw_training import draw_training
from llava_mole.analysis.routing.drawing import png_of, pyplot, save
from llava_mole.analysis.routing.page import Picture, write_page
from llava_mole.analysis.routing.tracing import Trace
from llava_mole.analysis.routing.training import Training
from llava_mole.files import replace_json

_LOAD = (
    "Mean over sequences, the lines one standard deviation up and down, dotted an even share. A "
    "sequence is a record's image, question and reference answer, as the model reads it in "
    "training."
)
_KINDS = (
    "Where the tokens of the images, of the questions (with the template's own words) and of the "
    "reference answers go, all sequences of a data set together."
)
_SETS = (
    "Left: how far apart data sets' shares of tokens per expert are, 0 for the same shares and 1 "
    "for two sets that share no expert. Right: how much one token's expert tells about its data "
    "set. Grey: what comes out when the sequences' data set labels are shuffled ({shuffles} "
    "times), so only what lies above it is more than chance."
)
_TRAINING = (
    "From the run's own log: the shares of tokens per expert between two log lines, as a mean over "
    "layers, and by layer up to the newest checkpoint. Below: how far apart the data sets are "
    "(Jensen-Shannon divergence, mean over layers), and how even the load is."
)


@dataclass
class Report:
    """What is to be written.

    Attributes:
        output: the main picture; its suffix is that of the others.
        facts: names and values for the page's head.
        notes: sentences for it.
        num_experts: K.
        places: layers to draw, by their place among those that have experts.
        counts: data set name to its counts, empty for none.
        training: the run's own records.
        trace: one conversation.
    """

    output: Path
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    num_experts: int
    places: Sequence[int]
    counts: Mapping[str, Counts] = field(default_factory=dict)
    training: Training | None = None
    trace: Trace | None = None

    def write(self) -> list[Path]:
        """Writes all files; returns them, the page first.

        The main picture comes last: where it is, all others are.
        """
        self._files = [self.output.with_suffix(".html")]
        with pyplot() as plt:
            pictures, main = [], None
            if self.counts:
                main = draw_load(plt, self.counts, self.places)
                pictures.append(Picture("Tokens per expert", _LOAD, png_of(main)))
            pictures += self._other_pictures(plt)
            if self.trace is not None:
                places = shown_places(self.trace, self.places)
                self._draw("image", draw_trace(plt, self.trace, places), self.trace.to_dict())
            write_page(
                self._files[0],
                self.facts,
                self.notes,
                pictures,
                self.num_experts,
                self.trace,
                self.places,
            )
            if main is not None:
                self._draw("", main, {name: one.to_dict() for name, one in self.counts.items()})
        return self._files

    @functools.cached_property
    def comparison(self) -> Comparison | None:
        """The data sets compared, None for fewer than two."""
        return compare(self.counts) if len(self.counts) > 1 else None

    def _other_pictures(self, plt: Any) -> Iterator[Picture]:
        if self.counts:
            kinds = self._draw("kinds", draw_kinds(plt, self.counts))
            yield Picture("Kinds of tokens", _KINDS, kinds)
        if self.comparison is not None:
            figure = draw_comparison(plt, self.comparison)
            sets = self._draw("sets", figure, self.comparison.to_dict())
            yield Picture("Data sets apart", _SETS.format(shuffles=SHUFFLES), sets)
        if self.training is not None:
            figure = draw_training(plt, self.training)
            png = self._draw("training", figure, self.training.to_dict())
            yield Picture("While it trained", _TRAINING, png)

    def _draw(self, name: str, figure: Any, numbers: Any = None) -> bytes:
        """Writes a picture, its numbers before it; returns it as a PNG file."""
        stem = f"{self.output.stem}.{name}" if name else self.output.stem
        picture = self.output.with_name(f"{stem}{self.output.suffix}")
        if numbers is not None:
            self._files.append(picture.with_name(f"{stem}.json"))
            replace_json(self._files[-1], numbers)
        self._files.append(picture)
        return save(figure, picture)


def summary(comparison: Comparison) -> str:
    """The layer whose experts tell the data sets apart best, in one line."""
    information = comparison.information
    best = int(information.above_chance.argmax())
    return (
        f"data sets differ most in layer {comparison.layers[best]}: an expert tells "
        f"{information.value[best]:.3f} of at most {information.maximum:.3f} bits about a token's "
        f"data set (by chance {information.chance_mean[best]:.3f}, 95 % below "
        f"{information.chance_95[best]:.3f})"
    )
