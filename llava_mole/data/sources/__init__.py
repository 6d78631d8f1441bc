"""Readers: one file a published format, each giving `Record`s or the `BadRecord` in their place."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava_mole.data.sources.source import Piece, Source

__all__ = ["SOURCES", "Piece", "Source", "SourceKind", "open_source"]


@dataclass(frozen=True)
class SourceKind:
    """How ``data prepare NAME`` becomes a `Source`.

    Attributes:
        summary: what it is, for ``--help``.
        module: of this package; imported when it is asked for.
        factory: name in ``module``, called with the path, ``fixed`` and the chosen options.
        options: the options it knows; their values are texts, or tuples of texts for lists.
        fixed: arguments that go with the name.
    """

    summary: str
    module: str
    factory: str
    options: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


SOURCES: dict[str, SourceKind] = {
    "sharegpt4v-pretrain": SourceKind(
        "1.2 million captions (stage 1)",
        "sharegpt4v",
        "ShareGPT4VSource",
        fixed={"stage": "pretrain"},
    ),
    "sharegpt4v-instruct": SourceKind(
        "665,000 instructions", "sharegpt4v", "ShareGPT4VSource", fixed={"stage": "instruct"}
    ),
    "llava": SourceKind("any LLaVA JSON or JSONL file", "llava", "LlavaSource"),
    "m3it": SourceKind(
        "M3IT's folder data/",
        "m3it",
        "M3ITSource",
        ("groups", "datasets", "exclude", "split", "seed"),
    ),
    "ureader": SourceKind(
        "UReader's documents, charts and tables",
        "ureader",
        "UReaderSource",
        ("split", "datasets", "exclude"),
    ),
    "pathvqa": SourceKind(
        "PathVQA, the raw pvqa/ or the hub's parquet", "pathvqa", "PathVQASource", ("split",)
    ),
}


def open_source(name: str, path: str, **options: Any) -> Source:
    """The source ``name`` of the files at ``path``.

    Args:
        name: a key of `SOURCES`.
        path: folder or file, as published.
        options: of the command; None means not given.

    Raises:
        ValueError: no such source, or an option that it does not know.
    """
    if name not in SOURCES:
        raise ValueError(f"no source {name!r}; choose one of {', '.join(SOURCES)}")
    kind = SOURCES[name]
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in kind.options:
            known = ", ".join(f"--{option}" for option in kind.options) or "none"
            raise ValueError(f"{name} has no option --{key}; those it knows: {known}")
    if not Path(path).exists():
        raise ValueError(f"{name}: --source {path}: no such file or folder")
    if name == "llava":
        given["name"] = Path(path).stem
    module = importlib.import_module(f"llava_mole.data.sources.{kind.module}")
    return getattr(module, kind.factory)(path, **kind.fixed, **given)
