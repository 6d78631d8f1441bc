"""What an audit found, for people as tables and for scripts as JSON."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llava_mole.data.audit.audit import Audit
from llava_mole.data.audit.problems import KINDS, OTHER
from llava_mole.data.audit.set_audit import KindAudit, SetAudit, SourceAudit

# Raise when a script that reads the JSON would have to change.
VERSION = 1
_MAX_ROWS = 40
_REMEDIES = {kind.name: kind.remedy for kind in (*KINDS, OTHER)}


def text(audit: Audit) -> str:
    """Counts by data set and source, then what is wrong and what to do, peculiar and repeated."""
    sections = [_table(audit.sets)]
    for found in audit.sets:
        name = f"{found.name}: " if len(audit.sets) > 1 else ""
        sections += [_bad(name, found), _notes(name, found), _duplicates(name, found)]
        if found.shortened:
            sections.append(
                f"{name}{found.shortened:,} sample(s) too long, their last turns are left out"
            )
    return "\n\n".join(section for section in sections if section)


def write_json(audit: Audit, path: str | os.PathLike[str], settings: dict[str, Any]) -> None:
    """Writes `as_json` to ``path``, replacing it in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    content = json.dumps(as_json(audit, settings), indent=1, ensure_ascii=True)
    partial.write_text(content + "\n", encoding="utf-8")
    os.replace(partial, path)


def as_json(audit: Audit, settings: dict[str, Any]) -> dict[str, Any]:
    """The report as JSON values.

    Args:
        audit: what was found.
        settings: how it was looked for; kept as they are.
    """
    return {
        "version": VERSION,
        "settings": settings,
        "records": sum(len(found.keep) for found in audit.sets),
        "bad": sum(len(found.problems) for found in audit.sets),
        "data_sets": [_set_as_json(found) for found in audit.sets],
    }


def _set_as_json(found: SetAudit) -> dict[str, Any]:
    return {
        "name": found.name,
        "records": len(found.keep),
        "bad": len(found.problems),
        "sources": {name: _source_as_json(source) for name, source in found.sources.items()},
        "kinds": {
            name: {"count": kind.count, "remedy": _REMEDIES[name], "examples": kind.examples}
            for name, kind in _by_count(found.kinds)
        },
        "notes": {
            note: {"count": count, "example": example}
            for note, (count, example) in found.notes.items()
        },
        "duplicates": {
            "count": sum(source.duplicates for source in found.sources.values()),
            "examples": [{"record": again, "repeats": first} for again, first in found.repeated],
        },
        "shortened": found.shortened,
    }


def _source_as_json(source: SourceAudit) -> dict[str, Any]:
    tokens = source.tokens and dict(zip(("min", "median", "max"), source.tokens, strict=True))
    return {
        "records": source.records,
        "bad": source.bad,
        "images": source.images,
        "text_only": source.text_only,
        "duplicates": source.duplicates,
        "tokens": tokens,
    }


def _table(sets: Sequence[SetAudit]) -> str:
    tokens = any(source.tokens for found in sets for source in found.sources.values())
    head = ["data set", "source", "records", "images", "text only"]
    head += ["tokens min", "median", "max"] if tokens else []
    rows = [(*head, "duplicates", "bad")]
    total = SourceAudit()
    for found in sets:
        sources = sorted(found.sources.items(), key=lambda item: -item[1].records - item[1].bad)
        for name, source in sources[:_MAX_ROWS]:
            rows.append(_row(found.name, name, source, tokens))
        if len(sources) > _MAX_ROWS:
            rest = _sum(source for _, source in sources[_MAX_ROWS:])
            label = f"{len(sources) - _MAX_ROWS} more sources"
            rows.append(_row(found.name, label, rest, tokens))
        total = _sum([total, *found.sources.values()])
    if len(rows) != 2:
        rows.append(_row("all", "", total, tokens))
    return "\n".join(_aligned(rows))


def _row(name: str, source: str, counts: SourceAudit, tokens: bool) -> tuple[str, ...]:
    cells = [counts.records, counts.images, counts.text_only]
    if tokens:
        cells += counts.tokens or ["-"] * 3
    cells += [counts.duplicates, counts.bad]
    shown = (f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)
    return (_plain(name), _plain(source), *shown)


def _sum(sources: Iterable[SourceAudit]) -> SourceAudit:
    total = SourceAudit()
    for source in sources:
        for key in ("records", "bad", "images", "text_only", "duplicates"):
            setattr(total, key, getattr(total, key) + getattr(source, key))
    return total


def _bad(name: str, found: SetAudit) -> str:
    lines = []
    for kind, bad in _by_count(found.kinds):
        lines.append(f"{name}{bad.count:,} x {kind}: {_REMEDIES[kind]}")
        lines += [f"    bad: {_plain(example)}" for example in bad.examples]
        if bad.count > len(bad.examples):
            lines.append(f"    and {bad.count - len(bad.examples):,} more")
    return "\n".join(lines)


def _notes(name: str, found: SetAudit) -> str:
    return "\n".join(
        f"{name}note: {count:,} image(s) {note}, e.g. {_plain(example)}"
        for note, (count, example) in sorted(found.notes.items())
    )


def _duplicates(name: str, found: SetAudit) -> str:
    if not found.repeated:
        return ""
    count = sum(source.duplicates for source in found.sources.values())
    lines = [f"{name}note: {count:,} record(s) repeat an earlier one, images and turns alike"]
    lines += [f"    {_plain(again)} repeats {_plain(first)}" for again, first in found.repeated]
    return "\n".join(lines)


def _by_count(kinds: dict[str, KindAudit]) -> list[tuple[str, KindAudit]]:
    return sorted(kinds.items(), key=lambda item: (-item[1].count, item[0]))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _plain(text: str) -> str:
    """Text from a data set without what could move a terminal's cursor, and not endless."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:1000])
    return shown + "..." * (len(text) > 1000)
