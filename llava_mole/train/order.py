"""Which records a run was started with, so that a resumed run goes on in the same order.

The order of an epoch is a permutation of the records that the audit found good. If an image went
bad since the start, an audit before resuming would leave its record out and permute the rest anew:
some samples would be shown twice and others never. So a run keeps to the records it began with;
one that has gone bad since is then met, and passed over, where it is due.
"""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from llava_mole.data.audit.set_audit import SetAudit
from llava_mole.data.build import OpenData
from llava_mole.data.mixture import Mixture
from llava_mole.data.records import BadRecord
from llava_mole.data.tokens.encode import Encoder

ORDER = "order.json"


def note(folder: Path, data: OpenData) -> None:
    """Writes down the records that a run in ``folder`` starts with, by those left out."""
    facts = {
        found.name: {
            "rows": found.rows,
            "left_out": np.setdiff1d(np.arange(found.rows), found.keep).tolist(),
        }
        for found in data.audit.sets[: len(data.sets)]
    }
    partial = folder / f"{ORDER}.partial"
    partial.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    os.replace(partial, folder / ORDER)


def hold(folder: Path, data: OpenData, encoder: Encoder) -> OpenData:
    """``data`` with the records that the run in ``folder`` started with.

    Raises:
        ValueError: a data set has another number of records than then.
    """
    path = folder / ORDER
    if not path.exists():
        return data
    facts = json.loads(path.read_text(encoding="utf-8"))
    sets = list(data.audit.sets)
    for index, records in enumerate(data.sets):
        found, fact = sets[index], facts[records.name]
        if found.rows != fact["rows"]:
            raise ValueError(
                f"data set {records.name!r} has {found.rows:,} records and had {fact['rows']:,} "
                f"when the run in {folder} began, so that its order can't be continued; give it "
                "back its data, or start in another output_dir."
            )
        keep = np.setdiff1d(np.arange(found.rows), np.array(fact["left_out"], dtype=np.int64))
        if not np.array_equal(keep, found.keep):
            sets[index] = _kept(data, index, keep, encoder)
    audit = dataclasses.replace(data.audit, sets=sets)
    parts = [
        dataclasses.replace(part, size=len(found.keep))
        for part, found in zip(data.mixture.parts, sets, strict=False)
    ]
    return dataclasses.replace(data, audit=audit, mixture=Mixture(parts, data.mixture.seed))


def _kept(data: OpenData, index: int, keep: np.ndarray, encoder: Encoder) -> SetAudit:
    """The audit of a set with the rows ``keep``; what it has no length of is counted now."""
    found = data.audit.sets[index]
    lengths = np.zeros(found.rows, dtype=np.int32)
    num_images = np.zeros(found.rows, dtype=np.int16)
    lengths[found.keep], num_images[found.keep] = found.lengths, found.num_images
    for row in np.setdiff1d(keep, found.keep).tolist():
        try:
            encoded = encoder(data.sets[index].record(row))
            lengths[row], num_images[row] = len(encoded.input_ids), len(encoded.images)
        except BadRecord:
            lengths[row] = 1  # what stands in for it
    return dataclasses.replace(found, keep=keep, lengths=lengths[keep], num_images=num_images[keep])
