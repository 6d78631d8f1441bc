"""The frozen model that runs start from, by its weights: results on different ones don't compare.

A config's hash covers the path of a base model, not what is there. Trained anew on another machine,
the same path holds other weights, and every score moves with them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llava_mole.model.identity import weights_of
from llava_mole.reproduce.identity import sha256
from llava_mole.reproduce.runs import Run

_DIGITS = 12


def base_of(run: Run) -> str | None:
    """The first 12 hex digits of the SHA-256 of a run's language model and projector.

    A projector of the row's own stage 1 is left out: it is trained on the way. A name on the hub
    stands for the weights there.

    Returns:
        None for a checkpoint, which is only evaluated.
    """
    if run.config is None:
        return None
    model = run.config.model
    parts = {"language_model": model.language_model or model.checkpoint}
    if run.stage_1 is None:
        parts["projector"] = model.projector
    return sha256({key: _weights(place) for key, place in parts.items()})[:_DIGITS]


def refuse_another_base(line: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> None:
    """Raises ValueError where ``line`` was measured on another base model than ``others``.

    Lines that start from the scale's stage 1 are held against each other, and so are those that
    bring their own. A line that does not say its base is of another; a checkpoint's has none.

    Args:
        line: of results, or ``rows``, ``seed``, ``config`` and ``base`` of a run to come.
        others: lines of one base model.
    """
    kind = _kind(line)
    other = next((one for one in others if _kind(one) == kind), None)
    if kind != "checkpoint" and other is not None and other.get("base") != line.get("base"):
        raise ValueError(
            f"{line['rows'][0]}, seed {line['seed']}, starts from language model and projector "
            f"{line.get('base')}, and {other['rows'][0]}, seed {other['seed']}, from "
            f"{other.get('base') or 'some that it does not say'}: results on different base models "
            "are never mixed. Start from that one (where the scale ships it: remove this one's "
            "folders, and --prepare copies it), or give these results a place of their own "
            "(--output)"
        )


def _kind(line: Mapping[str, Any]) -> str:
    config = line["config"]
    return next((key for key in ("checkpoint", "stage_1") if key in config), "plain")


def _weights(place: str | None) -> Any:
    if place is None:
        return None
    return weights_of(place) or Path(place).name
