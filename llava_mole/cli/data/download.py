"""examples:
# what there is, under which licence and how large
llava-mole data download

# the captions of stage 1, and what to fetch besides
llava-mole data download sharegpt4v-pretrain

# two groups of M3IT, and first only what would come
llava-mole data download m3it --only 'data/vqa/*,data/reasoning/*' --dry-run

A download that was stopped goes on where it was when the command is given again. Set HF_TOKEN, or
log in with `hf auth login`, where the hub asks for it.
"""

import argparse
from pathlib import Path

HELP = "fetch a published data set from the hub; without a name, list them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``download``."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="which data set")
    parser.add_argument(
        "--output",
        default="playground/data",
        metavar="DIR",
        help="data folder; the set gets a folder in it (default: %(default)s)",
    )
    parser.add_argument(
        "--only", metavar="PATTERNS", help="only files whose path matches, as 'data/vqa/*,*.json'"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would come and from where, no more"
    )


def run(arguments: argparse.Namespace) -> int:
    """Lists the catalogue, or downloads and unpacks one set of it."""
    from llava_mole.data.hub.catalogue import CATALOGUE, entry

    if arguments.name is None:
        for name in CATALOGUE:
            print("\n".join(_described(name, entry(name))) + "\n")
        return 0
    return _download(arguments, entry(arguments.name))


def _download(arguments: argparse.Namespace, chosen) -> int:
    from llava_mole.data.hub.catalogue import bytes_text
    from llava_mole.data.hub.download import Unreachable, download, look_up, missing_bytes
    from llava_mole.data.hub.unpack import unpack

    folder = Path(arguments.output) / chosen.folder
    patterns = tuple(part.strip() for part in (arguments.only or "").split(",") if part.strip())
    print("\n".join(_described(arguments.name, chosen)[:-1]))
    try:
        listing = look_up(chosen, patterns)
    except Unreachable as error:
        if not arguments.dry_run:
            raise
        print(f"  on the hub now: {error}")
        listing = None
    if listing is not None:
        print(
            f"  on the hub now: {len(listing.files):,} files, {bytes_text(listing.total)}, licence "
            f"{listing.licence or 'not stated'}; still to come "
            f"{bytes_text(missing_bytes(listing, folder))} into {folder}"
        )
    if arguments.dry_run:
        for path, file in listing.files.items() if listing else ():
            print(f"    {bytes_text(file.size):>10}  {path}")
    else:
        download(chosen, listing, arguments.output)
        for archive in chosen.archives:
            if archive.file in listing.files:
                count = unpack(folder / archive.file, folder / archive.holds)
                print(f"  unpacked {archive.file}: {count:,} files in {folder / archive.holds}")
    print("\n".join(_what_next(chosen, Path(arguments.output))))
    return 0


def _described(name: str, chosen) -> list[str]:
    from llava_mole.data.hub.catalogue import bytes_text

    more = f" (besides {len(chosen.by_hand)} to fetch by hand)" if chosen.by_hand else ""
    return [
        f"{name}: {chosen.title}",
        f"  licence: {chosen.licence}",
        f"  records: {chosen.records}",
        f"  size: {bytes_text(chosen.about_bytes)}, {chosen.size_note}",
        f"  from: {chosen.page}{more}",
    ]


def _what_next(chosen, data: Path) -> list[str]:
    lines = ["by hand:"] if chosen.by_hand else []
    for item in chosen.by_hand:
        lines += [f"  {item.what}", f"    from {item.address}", f"    into {data / item.folder}"]
        lines += [f"    {item.note}"] if item.note else []
    return [*lines, "then:", f"  {chosen.prepare.format(data=data)}"]
