"""What a reader of a published format offers: its files cut into pieces, and each piece's records.

Pieces are what processes share out and what an interrupted preparation resumes by. They depend on
the files and the settings alone, so the same records come out in the same order however many
processes read them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from llava_mole.data.records import BadRecord, Record


@dataclass(frozen=True)
class Piece:
    """A stretch of one file that one process reads.

    Attributes:
        file: path of the file, as errors name it.
        start: where it begins: a byte offset, or a row for files that are not text.
        stop: one past its end, in the same unit.
        line: 1-based line (or row) that ``start`` lies in.
    """

    file: str
    start: int
    stop: int
    line: int = 1


class Source(Protocol):
    """A data set in its published layout. Implementations are small frozen dataclasses.

    Attributes:
        name: stands in as a record's source where a row names none.
    """

    name: str

    def settings(self) -> dict[str, Any]:
        """Everything besides the files' content that the records depend on, as JSON values.

        Includes a version that is raised when the same files would give other records.
        """

    def image_root(self) -> str:
        """The folder that image paths start from; not used where records carry their images."""

    def files(self) -> list[str]:
        """The files that are read, in order.

        Raises:
            ValueError: the folder is not in the published layout; says what is missing.
        """

    def pieces(self) -> Iterator[Piece]:
        """All pieces in order.

        Raises:
            ValueError: a file that is broken as a whole.
        """

    def read(self, piece: Piece) -> Iterator[Record | BadRecord]:
        """The items of ``piece`` in order, each as a record or as the error in its place."""
