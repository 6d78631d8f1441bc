"""What passes between this package's parts: a row, a score, what a row was measured to have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PlainLora:
    """How a row is trained that is one LoRA of one rank, on the stage 1 that every row starts from.

    Attributes:
        weights: domain to λ, those above 0.
        rank: in the paper's measure.
        epochs: in the paper's measure.
    """

    weights: Mapping[str, float]
    rank: int
    epochs: float


@dataclass(frozen=True)
class Row:
    """One row of a table of the paper, or of ours.

    Attributes:
        table: ``2``, ``3``, ``4``, ``5``, ``controls``, ``ablations``, …: the folder of its file.
        number: the row's number as printed; None for ours.
        name: its file's name, ``llava-mole-1-2-1``.
        title: as printed, ``LLaVA-MoLE[1,2,1]``.
        printed: column to printed value; empty for ours.
        kind: ``trained``, ``evaluated`` (an official checkpoint) or ``quoted`` (as printed only).
        plain: how it is trained where that is a plain LoRA; None for any other row.
    """

    table: str
    number: int | None
    name: str
    title: str
    printed: Mapping[str, float]
    kind: str
    plain: PlainLora | None = None


@dataclass(frozen=True)
class Score:
    """One run's score in one column, per cent (eHub's All: the sum of five).

    Attributes:
        value: the score.
        low: lower end of the 95 % interval over images.
        high: its upper end.
        questions: how many it rests on.
    """

    value: float
    low: float
    high: float
    questions: int


@dataclass(frozen=True)
class Measured:
    """What one row was measured to have.

    Attributes:
        scores: seed to column to score.
        extras: seed to other figures: ``parameters``, ``saved_bytes``, ``seconds``, ``steps``.
        routing: seed to where the routers sent the benchmarks' tokens, for rows that have routers:
            ``layers``, and ``load``, benchmark to layer to each expert's share in per mille.
    """

    scores: Mapping[int, Mapping[str, Score]]
    extras: Mapping[int, Mapping[str, float]]
    routing: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
