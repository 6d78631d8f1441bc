"""What several commands read in the same way: question sets, and the device."""

from collections.abc import Sequence
from pathlib import Path


def open_sets(pairs: Sequence[str], option: str, image_root: str | None = None) -> dict:
    """Opens every ``NAME=FILE`` as a `RecordSet`.

    Raises:
        ValueError: a pair that is not one, a name given twice, a missing file, or bad records.
    """
    from llava_mole.data.config import DatasetConfig
    from llava_mole.data.prepared.recordset import open_dataset

    opened = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not equals or not name or not file or Path(name).name != name:
            raise ValueError(f"{option} {pair!r}: write it as NAME=FILE, the name not a path")
        if name in opened:
            raise ValueError(f"{option}: two sets are named {name!r}")
        records = open_dataset(DatasetConfig(name, file, image_root))
        if records.problems:
            raise ValueError(
                f"{option} {pair!r}: {len(records.problems)} bad record(s), the first: "
                f"{records.problems[0]}; 'llava-mole data check {file}' lists them all"
            )
        if not len(records):
            raise ValueError(f"{option} {pair!r}: no records in {file}")
        opened[name] = records
    return opened


def device_of(name: str | None) -> str:
    """The device a command was given, else a GPU where there is one.

    Raises:
        ValueError: no such device here.
    """
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"--device {name!r}: write cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"--device {name!r}: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs"
        )
    return str(device)
