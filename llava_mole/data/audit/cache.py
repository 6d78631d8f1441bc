"""Audits kept for the next run: two million rows are looked at once, not at every start.

An entry is found by all that its result depends on but for the image files: the records' stamp,
the image root, the encoder with its longest length and what it does beyond, and whether images
were decoded. Images may come and go later. So those that were bad are looked at again before an
entry is used, and ``llava-mole data check`` always looks at all of them; one that was good and has
gone bad since is met while training, where the same policy holds.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llava_mole.data.audit.look import Look
from llava_mole.data.audit.problems import Problems, kind_of
from llava_mole.data.audit.set_audit import KindAudit, SetAudit, SourceAudit, Tally
from llava_mole.data.cache import cache_folder
from llava_mole.data.prepared.recordset import RecordSet

if TYPE_CHECKING:
    from llava_mole.data.tokens.encode import Encoder

logger = logging.getLogger(__name__)

# Raise when an audit would find something else than before, or is kept in another form.
VERSION = 1
# More bad images than this are not worth looking at one by one: the audit is made anew.
_MAX_SECOND_LOOKS = 10_000
# What reading a file that is cut off, or is none of ours, ends in.
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


class AuditCache:
    """Audits in a folder, made with the same encoder and look at images.

    Args:
        folder: default ``~/.cache/llava_mole``.
        encoder: as given to the audit.
        check_images: as given to the audit.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, encoder: "Encoder | None", check_images: str
    ) -> None:
        self.folder = cache_folder(folder) / "audits"
        self.encoder, self.check_images = encoder, check_images
        self._encoding = encoder and (encoder.fingerprint, encoder.max_length, encoder.overlong)

    @contextlib.contextmanager
    def tally(self, records: RecordSet) -> Iterator["Entry"]:
        """An entry to fill for ``records``; nothing is left of it unless it is saved."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".partial-") as partial:
            path = Path(partial) / "problems"
            with open(path, "w", encoding="utf-8") as lines:
                yield Entry(
                    Tally(records, lines, self.encoder is not None),
                    Path(partial),
                    self._stem(records, self.check_images),
                )

    def load(self, records: RecordSet) -> SetAudit | None:
        """What an earlier audit of ``records`` found, if that is still so.

        An audit that decoded the images serves one that only looks for them.
        """
        for check_images in dict.fromkeys(("decode", self.check_images)):
            stem = self._stem(records, check_images)
            if not stem.with_suffix(".npz").exists():
                continue
            try:
                found, made = _read(stem, records)
            except _UNREADABLE as error:
                logger.warning("%s.npz: unreadable (%s); the audit is made anew", stem, error)
                continue
            if not self._still_bad(records, found, check_images):
                logger.info("data set %r: bad images have changed; looking anew", records.name)
                continue
            logger.info(
                "data set %r: checked %s ago, not again ('llava-mole data check' looks afresh)",
                records.name,
                _age(time.time() - made),
            )
            return found
        return None

    def _stem(self, records: RecordSet, check_images: str) -> Path:
        key = [
            VERSION,
            records.name,
            records.stamp,
            os.path.realpath(records.image_root),
            self._encoding,
            check_images,
        ]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return self.folder / digest[:32]

    def _still_bad(self, records: RecordSet, found: SetAudit, check_images: str) -> bool:
        """Whether every image that was bad still is, and in the same way."""
        mask = np.ones(found.rows, dtype=bool)
        mask[found.keep] = False
        rows = np.flatnonzero(mask).tolist()
        if len(rows) > _MAX_SECOND_LOOKS:
            return False
        look = Look(records, None, check_images)
        reasons = found.problems[len(found.problems) - len(rows) :]
        was = ((row, kind_of(problem.reason)) for row, problem in zip(rows, reasons, strict=True))
        return all(
            (reason := look.reason(row)) is not None and kind_of(reason) is kind
            for row, kind in was
            if kind.of_image
        )


@dataclasses.dataclass
class Entry:
    """An audit that is being made.

    Attributes:
        tally: adds it up.
        partial: folder of the files so far.
        stem: path of the finished files, but for their endings.
    """

    tally: Tally
    partial: Path
    stem: Path

    def save(self) -> SetAudit:
        """Puts the files in place, the table last, and gives what was found."""
        self.tally.lines.close()
        path = self.stem.with_suffix(".problems.jsonl")
        found = self.tally.result(str(path))
        problems = self.partial / "problems"
        meta = {
            "time": time.time(),
            "rows": found.rows,
            "problems": len(found.problems),
            "bytes": problems.stat().st_size,
            "sources": {k: dataclasses.asdict(v) for k, v in found.sources.items()},
            "kinds": {k: dataclasses.asdict(v) for k, v in found.kinds.items()},
            "shortened": found.shortened,
            "notes": found.notes,
            "repeated": found.repeated,
        }
        mask = np.zeros(found.rows, dtype=bool)
        mask[found.keep] = True
        arrays = {
            "meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8),
            "keep": np.packbits(mask),
            "num_images": found.num_images,
        }
        if found.lengths is not None:
            arrays["lengths"] = found.lengths
        table = self.partial / "table.npz"
        np.savez(table, **arrays)
        os.replace(problems, path)
        os.replace(table, self.stem.with_suffix(".npz"))
        return found


def _read(stem: Path, records: RecordSet) -> tuple[SetAudit, float]:
    """The audit at ``stem`` and when it was made, in seconds since 1970.

    Raises:
        ValueError: not of this many rows, or without the problems that were found with it.
    """
    path = stem.with_suffix(".problems.jsonl")
    with np.load(stem.with_suffix(".npz"), allow_pickle=False) as arrays:
        meta = json.loads(arrays["meta"].tobytes())
        if meta["rows"] != len(records) or meta["bytes"] != path.stat().st_size:
            raise ValueError("it belongs to other records or problems")
        mask = np.unpackbits(arrays["keep"], count=meta["rows"]).astype(bool)
        found = SetAudit(
            name=records.name,
            rows=meta["rows"],
            keep=np.flatnonzero(mask).astype(np.int64, copy=False),
            lengths=arrays.get("lengths"),
            num_images=arrays["num_images"],
            problems=Problems([(str(path), meta["problems"])]),
            sources={name: _source(values) for name, values in meta["sources"].items()},
            kinds={name: KindAudit(**values) for name, values in meta["kinds"].items()},
            shortened=meta["shortened"],
            notes={note: tuple(value) for note, value in meta["notes"].items()},
            repeated=[tuple(pair) for pair in meta["repeated"]],
        )
    return found, meta["time"]


def _source(values: dict) -> SourceAudit:
    tokens = values["tokens"]
    return SourceAudit(**{**values, "tokens": None if tokens is None else tuple(tokens)})


def _age(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
