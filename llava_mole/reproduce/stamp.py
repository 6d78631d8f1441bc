"""What a report rests on, in a few words that let two reports be told apart."""

import hashlib
import shlex
from collections.abc import Sequence
from typing import Any

from llava_mole.reproduce.runs import Run
from llava_mole.reproduce.scales import Scale
from llava_mole.reproduce.store import Store


def stamp(
    scale: Scale, runs: Sequence[Run], store: Store, command: Sequence[str]
) -> dict[str, Any]:
    """Scale, seeds, command, versions, and one hash over the runs that have results.

    Args:
        scale: of the runs.
        runs: that the report shows, done or not.
        store: has their results.
        command: what writes this report again.
    """
    lines = [line for run in runs if (line := store.get(run)) is not None]
    versions: dict[str, list[str]] = {}
    for line in lines:
        for name, version in (line.get("versions") or {}).items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    together = hashlib.sha256("".join(sorted(line["hash"] for line in lines)).encode())
    return {
        "scale": scale.name,
        "seeds": sorted({run.seed for run in runs}),
        "runs": f"{len(lines)} of {len(runs)}",
        "configs": together.hexdigest()[:12],
        "versions": {name: ", ".join(map(str, found)) for name, found in versions.items()},
        "command": shlex.join(command),
    }
