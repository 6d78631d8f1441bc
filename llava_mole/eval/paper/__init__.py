"""The paper's printed rows (Tables 2 to 5), and which of them a run's config is.

``tables.json`` has the numbers as printed, slips included: Table 2 row 10 prints All 292.0 where
its columns sum to 292.6, Table 3 row 8 prints 310.2 where they sum to 310.0.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

DOMAINS = ("general", "document", "biomedicine")


@dataclass(frozen=True)
class PaperRow:
    """One printed row.

    Attributes:
        place: ``paper, Table 2 row 13``.
        model: as printed.
        scores: column to printed value; columns without a number are left out.
    """

    place: str
    model: str
    scores: Mapping[str, float]


class Setting(NamedTuple):
    """What sets the paper's trained rows apart.

    Attributes:
        weights: λ of general, document and biomedicine.
        experts: K; None for plain LoRA.
        routing: ``top1`` or ``dense``; None for plain LoRA.
        r: rank.
        epochs: passes over the mixture.
    """

    weights: tuple[float, ...]
    experts: int | None
    routing: str | None
    r: int | None
    epochs: float


@dataclass(frozen=True)
class Printed:
    """Where a row is printed, and the setting it was trained in.

    Attributes:
        table: 2 to 5.
        number: of the row in it, from 1.
        setting: what `setting_of` gives for its config; None for a row that was not trained.
        row: its scores.
    """

    table: int
    number: int
    setting: Setting | None
    row: PaperRow


def row_of(config: Mapping[str, Any]) -> PaperRow | None:
    """The row whose model, mixture and adapter are those of a run's ``config.yaml``.

    Only LLaVA-1.5-7B matches (Vicuna-7B with CLIP ViT-L/336, or its published checkpoint without
    adapter, row 1): figures of anything smaller have no row to be held against.

    Args:
        config: the YAML file's content, or ``{"model": {"checkpoint": NAME}}`` of a checkpoint.
    """
    model = config.get("model") or {}
    checkpoint = str(model.get("checkpoint") or "").lower()
    if "data" not in config:
        if checkpoint.rstrip("/").endswith("llava-1.5-7b-hf"):
            return printed_rows()[0].row
        return None
    decoder = str(model.get("language_model") or "").lower()
    tower = str(model.get("vision_tower") or "").lower()
    if "vicuna-7b" not in decoder or "vit-l-14-336" not in tower:
        return None
    if config.get("stage") != "finetune":
        return None
    wanted = setting_of(config)
    if wanted is None:
        return None
    return next((printed.row for printed in printed_rows() if printed.setting == wanted), None)


def setting_of(config: Mapping[str, Any]) -> Setting | None:
    """The setting of a run's config; None where it is of a kind that the paper has no row of."""
    domains = (config["data"] or {}).get("domains") or {}
    if set(domains) - set(DOMAINS):
        return None
    weights = tuple(
        float((domains.get(name) or {}).get("weight", 1.0)) if name in domains else 0.0
        for name in DOMAINS
    )
    adapter = config.get("adapter") or {}
    train = config.get("train") or {}
    kind = adapter.get("type", "mole")
    if kind == "none" or train.get("max_steps", -1) not in (-1, None):
        return None
    if adapter.get("rank_pattern") or adapter.get("alpha_pattern"):
        return None
    if train.get("router_domain_coef"):
        return None
    experts = adapter.get("num_experts") if kind == "mole" else None
    routing = adapter.get("routing", "top1") if kind == "mole" else None
    epochs = float(train.get("num_train_epochs", 1))
    return Setting(weights, experts, routing, adapter.get("r"), epochs)


@functools.cache
def printed_rows() -> tuple[Printed, ...]:
    """Every row of Tables 2 to 5, in order."""
    text = importlib.resources.files(__package__).joinpath("tables.json").read_text("utf-8")
    tables = json.loads(text)
    rows = []
    for table in (2, 3, 4, 5):
        for number, row in enumerate(tables[f"table{table}"]["rows"], start=1):
            scores = {
                column: value
                for column, value in row["scores"].items()
                if isinstance(value, int | float)
            }
            setting = None
            if row["lambda_general"] is not None:
                weights = tuple(row[f"lambda_{name}"] for name in DOMAINS)
                experts = row["experts"]
                printed = row.get("routing")
                routing = None
                if experts is not None:
                    routing = "dense" if printed == "dense" else "top1"
                epochs = float(row.get("epochs", 1))
                setting = Setting(weights, experts, routing, row["lora_rank"], epochs)
            place = f"paper, Table {table} row {row.get('id', number)}"
            paper_row = PaperRow(place, row.get("model", ""), scores)
            rows.append(Printed(table, number, setting, paper_row))
    return tuple(rows)
