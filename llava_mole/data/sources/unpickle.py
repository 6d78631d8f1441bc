"""Pickles from the wild: plain containers and scalars, and no way to anything else.

`pickle` does whatever a file says; this reads the same bytes and looks no name up at all. What a
file may hold: dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, bool and None,
which is all that published question files need. (Protocols 0 to 2 write sets and bytes, and 3 sets,
as calls of their classes; those are refused with every other call.)

A file's instructions are first followed without making any of its objects. One that asks for a
class, a function, a persistent object, a registered extension or a buffer outside the file is
refused there, and so is one made to exhaust memory, time or the C stack.
"""

import io
import pickle
import pickletools
from typing import Any

MAX_BYTES = 64 * 2**20
# PathVQA's largest file has half a million instructions.
MAX_OPERATIONS = 2_000_000
MAX_ITEMS = 2_000_000
MAX_DEPTH = 20
# What a file may have hashed besides text, whose hash it can't choose: numbers and, part by part,
# tuples. A dict of chosen hashes takes quadratic time, a tuple that shares parts exponential time.
MAX_HASHED = 10_000

# Every way out of the plain types: names, calls of them, state, extensions, outside objects.
_REFUSED = {
    "GLOBAL": "a name to import",
    "STACK_GLOBAL": "a name to import",
    "INST": "an object of a class",
    "OBJ": "an object of a class",
    "NEWOBJ": "an object of a class",
    "NEWOBJ_EX": "an object of a class",
    "REDUCE": "a call of a function",
    "BUILD": "the state of an object",
    "EXT1": "a registered extension",
    "EXT2": "a registered extension",
    "EXT4": "a registered extension",
    "PERSID": "a persistent object",
    "BINPERSID": "a persistent object",
    "NEXT_BUFFER": "a buffer outside the file",
    "READONLY_BUFFER": "a buffer outside the file",
}
_HASHED = ("DICT", "SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET")
# What stands for an object while the instructions are followed: how deep tuples and frozen sets
# are nested in it, and what hashing it costs; None stands for a mark.
_TEXT, _OTHER = (0, 0), (0, 1)
_Stack = list[tuple[int, int] | None]


class _Plain(pickle.Unpickler):
    """Refuses, once more, what following the instructions did."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it asks for a persistent object")


def load_plain(file: str) -> Any:
    """The content of a pickle of plain containers and scalars, of any protocol.

    Args:
        file: path of the pickle.

    Returns:
        What it holds; objects that the file shares between places are shared here too.

    Raises:
        ValueError: too large, broken, or holds anything else; names the file and what it holds.
    """
    with open(file, "rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise pickle.UnpicklingError(f"it has more than {MAX_BYTES >> 20} MiB")
        _follow(data)
        # UTF-8 for the strings that Python 2 wrote as bytes.
        content = _Plain(io.BytesIO(data), encoding="utf-8", errors="strict").load()
        _measure(content)
    except (
        pickle.UnpicklingError, ValueError, EOFError, LookupError, TypeError, OverflowError,
        MemoryError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{file}: not read as a pickle of plain containers and scalars: {error}; fetch it "
            "again from its official address"
        ) from None
    return content


def _follow(data: bytes) -> None:
    """Follows the instructions without making objects.

    Raises:
        UnpicklingError: one that plain data never needs, or too many of those it does.
    """
    stack: _Stack = []
    memo: dict[int, tuple[int, int]] = {}
    hashed, end = 0, 0
    for count, (operation, argument, position) in enumerate(pickletools.genops(data)):
        name, end = operation.name, position + 1
        if name in _REFUSED:
            raise pickle.UnpicklingError(f"it holds {_REFUSED[name]} ({name} at byte {position})")
        if count > MAX_OPERATIONS:
            raise pickle.UnpicklingError(f"it has more than {MAX_OPERATIONS:,} instructions")
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            index = len(memo) if argument is None else argument
            # The reader makes a table as long as the largest index.
            if not 0 <= index <= count or stack[-1] is None:
                raise pickle.UnpicklingError(f"{name} of {index} at byte {position}")
            memo[index] = stack[-1]
            continue
        if name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
            continue
        if name in ("DUP", "POP"):
            top = stack.pop()
            stack.extend([top, top] if name == "DUP" else [])
            continue
        items = _take(stack, operation)
        if name in _HASHED:
            keys = items[::2] if name in ("DICT", "SETITEM", "SETITEMS") else items
            hashed += sum(cost for _, cost in keys)
            if hashed > MAX_HASHED:
                raise pickle.UnpicklingError(f"keys other than text: more than {MAX_HASHED:,}")
        for after in operation.stack_after:
            stack.append(_stands_for(name, after.name, items))
    if end != len(data):
        raise pickle.UnpicklingError(f"{len(data) - end:,} bytes follow its end")


def _take(stack: _Stack, operation: pickletools.OpcodeInfo) -> list[tuple[int, int]]:
    """Takes what ``operation`` consumes off the stack and returns its items, without containers."""
    before = [part.name for part in operation.stack_before]
    if "mark" in before:
        start = _last_mark(stack)
        items = stack[start + 1 :]
        del stack[start - before.index("mark") :]
        return items
    if len(stack) < len(before):
        raise pickle.UnpicklingError("it takes more off its stack than lies there")
    items = stack[len(stack) - len(before) :]
    del stack[len(stack) - len(before) :]
    return items[1:] if before[:1] in (["list"], ["dict"]) else items


def _last_mark(stack: _Stack) -> int:
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is None:
            return index
    raise pickle.UnpicklingError("an end without its beginning")


def _stands_for(name: str, kind: str, items: list[tuple[int, int]]) -> tuple[int, int] | None:
    if kind == "mark":
        return None
    if name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"):
        depth = 1 + max((depth for depth, _ in items), default=0)
        if depth > MAX_DEPTH:
            raise pickle.UnpicklingError(f"tuples more than {MAX_DEPTH} deep")
        return depth, min(1 + sum(1 + cost for _, cost in items), MAX_HASHED + 1)
    return _TEXT if "UNICODE" in name or "STRING" in name or "BYTES" in name else _OTHER


def _measure(content: Any) -> None:
    """Raises UnpicklingError for nesting that no walk would survive, or too many items.

    Shared containers are counted at every place they appear, as whoever walks them would.
    """
    items = 0
    # Containers on the way down to the current one, and what is still to visit in each.
    path = [iter((content,))]
    while path:
        for value in path[-1]:
            items += 1
            if items > MAX_ITEMS:
                raise pickle.UnpicklingError(f"it unfolds to more than {MAX_ITEMS:,} items")
            if isinstance(value, dict):
                value = (part for pair in value.items() for part in pair)
            elif not isinstance(value, list | tuple | set | frozenset):
                continue
            if len(path) > MAX_DEPTH:
                raise pickle.UnpicklingError(f"containers more than {MAX_DEPTH} deep")
            path.append(iter(value))
            break
        else:
            path.pop()
