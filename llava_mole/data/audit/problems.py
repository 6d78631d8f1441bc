"""Bad records on disk, one JSON line each, and the short stable name of what is wrong with them.

Two million records below a mistyped image root are two million problems: they are kept in a file
and read when somebody looks, so that no process has to hold them.
"""

import dataclasses
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from llava_mole.data.records import Problem


@dataclass(frozen=True)
class Kind:
    """A class of reasons.

    Attributes:
        name: short and stable, for scripts.
        pattern: found in every reason of this class and in none of the classes before it.
        remedy: what to do about all of its records at once.
        of_image: whether it lies in an image file, which may be repaired without the record.
    """

    name: str
    pattern: str
    remedy: str
    of_image: bool = False


# The one place that knows what reasons say; they are raised in records.py, images.py, encode.py and
# sources/. The first match counts. A reason that matches nothing is "other".
KINDS = (
    Kind(
        "missing_image",
        r"^image .*(No such file|Not a directory)",
        "fetch the images, or correct image_root; 'llava-mole data download' says from where",
        True,
    ),
    Kind(
        "image_path",
        r"^image .*(absolute path|'\.\.' in the path|URLs are never|NUL in the path|"
        r"symbolic link leads outside)|^image: .* is not a path",
        "make every image path relative to image_root and keep the images inside it",
        True,
    ),
    Kind(
        "oversized_image",
        r"^image .*(bytes, more than|more than [\d,]+ (bytes|pixels)|is longer than \d+:1)",
        "make these images smaller or cut them into pieces",
        True,
    ),
    Kind(
        "corrupt_image",
        r"^image .*(not a readable|the file is empty)|^image: empty",
        "fetch these files again; what can't be repaired is left out by --on-bad-record skip",
        True,
    ),
    Kind(
        "missing_page",
        r"^image .*without page",
        "correct the page after the file's name, counted from 0, or fetch the file again",
        True,
    ),
    Kind(
        "refused_image",
        r"^image ",
        "make these regular, readable files; what can't be is left out by --on-bad-record skip",
        True,
    ),
    Kind(
        "image_count",
        r"image\(s\) but|<image> for \d+ image|has no <image>|images in one record",
        "write one <image> in the user's turns for each image, or correct the list of images",
    ),
    Kind(
        "image_field",
        r"^image: must be",
        "give 'image' as a path or a list of paths, or leave it out",
    ),
    Kind(
        "roles",
        r"role is|nobody answers|write 'human' or 'gpt'",
        "let user and assistant alternate, the user first and the assistant last",
    ),
    Kind(
        "empty_answer", r"the assistant's text is empty", "fill the answer in or remove the record"
    ),
    Kind("empty_question", r"the user's text is empty", "fill the turn in or remove the record"),
    Kind("no_turns", r"no turns|^conversations: must be", "give the turns or remove the record"),
    Kind(
        "too_long",
        r"its answer would not fit|its first exchange alone takes",
        "raise model_max_length, set overlong: drop_turns, or shorten the records",
    ),
    Kind(
        "no_target",
        r"no token of the answer is supervised",
        "check the answers and the template (model.conv_mode)",
    ),
    Kind("not_text", r"lone surrogate|not Unicode|must have a text", "repair the text's escapes"),
    Kind("not_json", r"not a JSON|not JSON|JSON", "repair or remove the line"),
    Kind("not_a_record", r"instead of an object|must be a text", "repair or remove the line"),
)
OTHER = Kind("other", "", "see the reasons of the examples")
_COMPILED = [(re.compile(kind.pattern), kind) for kind in KINDS]


def kind_of(reason: str) -> Kind:
    """The class of ``reason``."""
    # What people wrote is quoted after the first words; a long quotation says nothing more.
    start = reason[:1000]
    return next((kind for pattern, kind in _COMPILED if pattern.search(start)), OTHER)


class Problems(Sequence[Problem]):
    """Bad records in a file, or in several one after the other.

    Args:
        files: of lines that `line_of` gave, each with the number of its lines.
    """

    def __init__(self, files: Iterable[tuple[str, int]] = ()) -> None:
        self.files = tuple(files)

    def __len__(self) -> int:
        return sum(count for _, count in self.files)

    def __iter__(self) -> Iterator[Problem]:
        for path, count in self.files:
            if count:
                with open(path, encoding="utf-8") as file:
                    for line in itertools.islice(file, count):
                        values = json.loads(line)
                        del values["kind"]
                        yield Problem(**values)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index):
        """Reads the file up to ``index``."""
        if isinstance(index, slice):
            return list(itertools.islice(self, *index.indices(len(self))))
        number = range(len(self))[index]
        return next(itertools.islice(self, number, None))

    def __add__(self, other: "Problems") -> "Problems":
        return Problems((*self.files, *other.files))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Copies all lines to ``path``, replacing it in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # By process: all ranks may write the same report.
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with open(partial, "wb") as target:
            for source, count in self.files:
                if count:
                    with open(source, "rb") as file:
                        shutil.copyfileobj(file, target)
        os.replace(partial, path)


def line_of(problem: Problem) -> str:
    """``problem`` as a line of JSON, with its kind."""
    values = {**dataclasses.asdict(problem), "kind": kind_of(problem.reason).name}
    # Escaped: the reason may quote text that is not Unicode.
    return json.dumps(values) + "\n"
