"""Where M3IT's files lie: ``data/GROUP/DATASET/*.jsonl``, and which of them are a split.

The names vary: ``mocheg_train.jsonl``, ``train.large.jsonl``, ``validation.jsonl``. A folder may
hold several editions of one split. Taken is the one that the hub's own loader takes for the card's
counts: the highest ``_v2``, never a dated one (``train_2023-10-09.jsonl``), which is a later
rephrasing of the same rows with about as much data again; those are data sets of their own, called
``DATASET-rephrased``, read only where asked for by name.

Read in the hub's file listings and the history of its loader, ``M3IT.py``; the files themselves
were not at hand.
"""

import os
import re
from typing import NamedTuple

GROUPS = ("captioning", "classification", "generation", "reasoning", "vqa")
# The card's tasks that no folder stands for.
COLLECTIONS = {
    "kvqa": ("okvqa", "a-okvqa", "science-qa", "viquae"),
    "chinese": ("fm-iqa", "coco-cn", "flickr8k-cn", "chinese-food", "mmchat"),
    "video": ("ss", "ivqa", "msvd-qa", "activitynet-qa", "msrvtt", "msrvtt-qa"),
}
SPLITS = {
    "train": ("train",),
    "val": ("val", "validation", "valid", "dev"),
    "test": ("test",),
}
# Folders on the hub that the card's 40 data sets and 1,592,320 training rows don't include.
NOT_IN_CARD = ("refcoco", "vsr")
REPHRASED = "-rephrased"

# Folders whose name in card and loader is not just theirs with "-" for "_".
_NAMES = {"vqav2": "vqa-v2", "itm": "coco-itm", "chinesefoodnet-10": "chinese-food"}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_VERSION = re.compile(r"[_.-]v(\d+)$")
# The edition that the loader names where one stands beside others.
_EDITIONS = ("train.large.jsonl",)


class Part(NamedTuple):
    """One data set of M3IT.

    Attributes:
        name: as card and loader call it.
        group: the folder above, such as ``vqa``.
        folder: where its files are.
        file: the JSONL of the split.
    """

    name: str
    group: str
    folder: str
    file: str

    def beside(self, *names: str) -> str | None:
        """The first of ``names`` that lies in the folder."""
        paths = (os.path.join(self.folder, name) for name in names)
        return next((path for path in paths if os.path.isfile(path)), None)


def part_of(file: str) -> Part:
    """The data set that a JSONL file belongs to, by its place and name."""
    folder = os.path.dirname(file)
    above, base = os.path.split(folder)
    name = _NAMES.get(base, base.replace("_", "-"))
    if _DATE.search(os.path.basename(file)):
        name += REPHRASED
    return Part(name, os.path.basename(above), folder, file)


def find_parts(
    folder: str,
    groups: tuple[str, ...],
    datasets: tuple[str, ...],
    exclude: tuple[str, ...],
    split: str,
) -> list[Part]:
    """The chosen data sets of a split, in the order of their paths.

    Args:
        folder: the download: it holds ``data``, or is that folder.
        groups: folders or `COLLECTIONS`; with ``datasets``, the choice is all of both. With
            neither it is everything but `NOT_IN_CARD` and the rephrased ones.
        datasets: names of card or folder.
        exclude: groups, collections or data sets to leave out.
        split: a key of `SPLITS`.

    Raises:
        ValueError: not M3IT's layout, an unknown name, or a named data set without that split.
    """
    if split not in SPLITS:
        raise ValueError(f"m3it: split is {split!r}; choose one of {', '.join(SPLITS)}.")
    everything = _everything(folder, split)
    known = {part.name for part, _ in everything}
    groups_known = {part.group for part, _ in everything} | set(COLLECTIONS)
    # The folder's own name is as good as the card's.
    alias = {
        os.path.basename(part.folder) + REPHRASED * part.name.endswith(REPHRASED): part.name
        for part, _ in everything
    }
    for key, names, allowed in (
        ("groups", groups, groups_known),
        ("datasets", datasets, known | set(alias)),
        ("exclude", exclude, groups_known | known | set(alias)),
    ):
        for name in names:
            if name not in allowed:
                raise ValueError(
                    f"m3it: {key} names {name!r}, which is not in {folder}; there are "
                    f"{', '.join(sorted(allowed - set(alias) | known & allowed))}."
                )
    datasets = tuple(alias.get(name, name) if name not in known else name for name in datasets)
    exclude = tuple(alias.get(name, name) if name not in known else name for name in exclude)
    chosen = [
        (part, there)
        for part, there in everything
        if _is_chosen(part, groups, datasets) and not _is_among(part, exclude)
    ]
    for part, there in chosen:
        if part.name in datasets and not there:
            raise ValueError(
                f"m3it: {part.folder} has no {split} file, only {_jsonl_of(part.folder)}; fetch it "
                "again or leave the data set out."
            )
    found = [part for part, there in chosen if there]
    if not found:
        raise ValueError(f"m3it: nothing in {folder} is chosen that has a {split} file.")
    return found


def _is_chosen(part: Part, groups: tuple[str, ...], datasets: tuple[str, ...]) -> bool:
    if part.name in datasets:
        return True
    if part.name.endswith(REPHRASED) or part.name in NOT_IN_CARD:
        return False
    return _is_among(part, groups) if groups or datasets else True


def _is_among(part: Part, names: tuple[str, ...]) -> bool:
    return (
        part.name in names
        or part.group in names
        or any(part.name in COLLECTIONS.get(name, ()) for name in names)
    )


def _everything(folder: str, split: str) -> list[tuple[Part, bool]]:
    """Every data set below ``folder``, and whether it has the split."""
    root = os.path.join(folder, "data")
    if not os.path.isdir(root):
        root = folder
    present = [group for group in GROUPS if os.path.isdir(os.path.join(root, group))]
    if not present:
        raise ValueError(
            f"m3it: {folder} is not M3IT as published: no data/{{{','.join(GROUPS)}}} in it; give "
            "the folder that holds data/."
        )
    result = []
    for group in present:
        for entry in sorted(os.listdir(os.path.join(root, group))):
            place = os.path.join(root, group, entry)
            if not os.path.isdir(place) or not (names := _jsonl_of(place)):
                continue
            plain, dated = _editions(place, names, split)
            nowhere = os.path.join(place, f"{split}.jsonl")
            result.append((part_of(plain or nowhere), plain is not None))
            if dated:
                result.append((part_of(dated), True))
    return result


def _jsonl_of(folder: str) -> list[str]:
    # instructions.jsonl has stood beside the data.
    return sorted(
        name
        for name in os.listdir(folder)
        if name.endswith(".jsonl") and not name.startswith(("instruction", "."))
    )


def _editions(folder: str, names: list[str], split: str) -> tuple[str | None, str | None]:
    """The split's file, and the latest rephrased one."""
    mine = [
        name
        for name in names
        if set(re.split(r"[^a-z0-9]+", name[: -len(".jsonl")].lower())) & set(SPLITS[split])
    ]
    dated = [name for name in mine if _DATE.search(name)]
    plain = [name for name in mine if name not in dated]
    versions = {name: _version(name) for name in plain}
    plain = [name for name in plain if versions[name] == max(versions.values())]
    for preferred in (*_EDITIONS, *(f"{alias}.jsonl" for alias in SPLITS[split])):
        if len(plain) > 1 and preferred in plain:
            plain = [preferred]
    if len(plain) > 1:
        raise ValueError(
            f"m3it: {folder} has several {split} files: {', '.join(plain)}; keep one of them."
        )
    return (
        os.path.join(folder, plain[0]) if plain else None,
        os.path.join(folder, max(dated)) if dated else None,
    )


def _version(name: str) -> int:
    match = _VERSION.search(name[: -len(".jsonl")])
    return int(match[1]) if match else 1
