"""The domains' gradient cosines before training, measured once and kept as a small file.

What a mixture loses is held against them in the report (`llava_mole.reproduce.report.prediction`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_mole.analysis.conflicts.measure import Settings, measure
from llava_mole.config import ConfigError
from llava_mole.files import replace_json
from llava_mole.reproduce.put_on import run_config
from llava_mole.reproduce.rows import RowFile
from llava_mole.reproduce.scales import Scale

# Where training starts. After 60 steps some of the tiny scale's mean gradients are not above their
# noise any more, after 200 none is.
STEPS = (0,)
# No image is drawn twice, and the tiny scale's six domains have three sources of 2,400.
BATCHES, BATCH_SIZE, SEED = 32, 36, 0
_DIGITS = 4


@dataclass(frozen=True)
class Cosines:
    """Cosines between domains' mean gradients of the adapter, at one place in training.

    Attributes:
        weights: where in training, in words.
        between: pair of domains, in either order, to cosine; None where undecided.
    """

    weights: str
    between: Mapping[tuple[str, str], float | None]


def measure_cosines(
    scale: Scale,
    item: RowFile,
    file: Path,
    steps: Sequence[int] = STEPS,
    batches: int = BATCHES,
    batch_size: int = BATCH_SIZE,
) -> None:
    """Measures the conflicts of a plain LoRA row's mixture and writes them down.

    Args:
        scale: where it is run.
        item: the row, whose mixture has every domain.
        file: JSON; replaced.
        steps: of training on the mixture before each measurement.
        batches: of each domain.
        batch_size: samples of a batch.

    Raises:
        ValueError: whatever keeps the row from being measured.
    """
    config = run_config(scale, item)
    found = []
    for count in steps:
        settings = Settings(batches, batch_size, SEED, steps_before=count)
        measured = measure(config, settings)
        found.append(
            {
                "weights": measured.about["weights"],
                "adapter": measured.about["adapter"],
                "batches": batches,
                "batch_size": batch_size,
                "seed": SEED,
                **_rounded(measured.conflicts.headline.to_dict()),
            }
        )
    replace_json(file, {"scale": scale.name, "row": item.row.name, "measurements": found})


def read_cosines(file: Path, scale: str) -> list[Cosines]:
    """What `measure_cosines` wrote; nothing where there is no file.

    Raises:
        ConfigError: another file, or one of another scale.
    """
    if not file.is_file():
        return []
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["scale"] != scale:
            raise ConfigError(
                f"{file}: cosines of scale {values['scale']!r}, not of {scale!r}; measure them at "
                "this scale (--conflicts)"
            )
        return [Cosines(one["weights"], _between(one["pairs"])) for one in values["measurements"]]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{file}: no file of gradient cosines ({error!r}); measure them anew (--conflicts)"
        ) from None


def _between(pairs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float | None]:
    found = {}
    for pair in pairs:
        one, other = pair["domains"]
        found[one, other] = found[other, one] = pair["cosine"]
    return found


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _rounded(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return round(values, _DIGITS) if isinstance(values, float) else values
