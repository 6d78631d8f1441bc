"""The one schema that every source is read into, and the error that names a bad record."""

from dataclasses import dataclass

IMAGE_TOKEN = "<image>"
ROLES = ("user", "assistant")


class BadRecord(ValueError):
    """A record that can't be trained on; the message names file, line, id, reason and remedy.

    One positional argument, so that it crosses process borders (data workers) unchanged.

    Attributes:
        file: the file the record came from, "" if not known.
        line: 1-based line, 0 if not known.
        id: the record's id.
        reason: what is wrong and what to do, without the place.
    """

    def __init__(self, reason: str, file: str = "", line: int = 0, id: str = "") -> None:
        self.file, self.line, self.id, self.reason = file, line, id, reason
        place = f"{file}:{line}: " if file else ""
        named = f"record {id!r}: " if id else ""
        super().__init__(f"{place}{named}{reason}")

    def __reduce__(self):
        return type(self), (self.reason, self.file, self.line, self.id)


@dataclass(frozen=True)
class Problem:
    """One bad record in a report."""

    dataset: str
    file: str
    line: int
    id: str
    reason: str

    @classmethod
    def of(cls, dataset: str, error: BadRecord) -> "Problem":
        """The report's line for ``error``."""
        return cls(dataset, error.file, error.line, error.id[:200], error.reason)

    def __str__(self) -> str:
        return str(BadRecord(self.reason, self.file, self.line, self.id))


@dataclass(frozen=True)
class Turn:
    """What one side said; ``content`` of a user may hold ``<image>`` slots anywhere."""

    role: str
    content: str


@dataclass(frozen=True)
class Record:
    """One conversation about zero or more images, valid by construction.

    Roles alternate from ``user`` to a last ``assistant``; each ``<image>`` in a user turn is a slot
    for the next of ``images``. In an assistant's turn the string is ordinary text.

    Attributes:
        id: the source's own id.
        source: data set within a collection, for statistics.
        task: kind of question, for statistics.
        images: in order of their slots, each a path relative to the data set's image root, or the
            encoded image itself (JPEG, PNG, ...) where the source carries it.
        turns: the conversation.
        file: where the record was read.
        line: 1-based line in ``file``.

    Raises:
        BadRecord: anything of that does not hold.
    """

    id: str
    source: str
    task: str
    images: tuple[str | bytes, ...]
    turns: tuple[Turn, ...]
    file: str = ""
    line: int = 0

    def __post_init__(self) -> None:
        """Raises BadRecord for a conversation that is not well-formed."""
        if reason := self._defect():
            raise BadRecord(reason, self.file, self.line, self.id)

    def bad(self, reason: str) -> BadRecord:
        """The error that names this record."""
        return BadRecord(reason, self.file, self.line, self.id)

    def _defect(self) -> str | None:
        if not self.turns:
            return "conversations: no turns; remove the record"
        slots = 0
        for index, turn in enumerate(self.turns):
            expected = ROLES[index % 2]
            if turn.role != expected:
                return (
                    f"conversations[{index}]: role is {turn.role!r} where {expected!r} is due; "
                    "turns alternate from user to assistant, so add the missing turn or remove "
                    "this one"
                )
            content = turn.content
            if not content or content.isspace():
                return (
                    f"conversations[{index}]: the {turn.role}'s text is empty; fill it in or "
                    "remove the record"
                )
            if not encodable(content):
                return (
                    f"conversations[{index}]: text with a lone surrogate (not Unicode); repair "
                    "its escapes"
                )
            if not index % 2:
                slots += content.count(IMAGE_TOKEN)
        if len(self.turns) % 2:
            return (
                "conversations: the last turn is the user's and nobody answers; "
                "add the answer or remove the turn"
            )
        if slots != len(self.images):
            return (
                f"image: {len(self.images)} image(s) but {slots} {IMAGE_TOKEN} in the user's "
                f"turns; write one {IMAGE_TOKEN} where each image belongs"
            )
        for image in self.images:
            if isinstance(image, bytes):
                if not image:
                    return "image: empty; fetch the file again or remove the record"
            elif not image or "\0" in image or not encodable(image):
                return f"image: {image[:200]!r} is not a path; give one relative to the image root"
        return None


def encodable(text: str) -> bool:
    """Whether ``text`` is Unicode, without the lone surrogates that JSON's escapes can write."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
