import builtins
import copyreg
import os
import pickle
import pickletools
import struct
import subprocess
import sys

import pytest

from llava_mole.data.sources import unpickle
from llava_mole.data.sources.unpickle import load_plain

PROTOCOLS = range(6)
QUESTIONS = [
    {"image": "train_0422", "question": "Is this normal?", "answer": "No"},
    {"answer_type": "other", "label": {"in the canals of hering": 1}, "question_id": 100422000},
    {"numbers": [0, -1, 2**70, 1.5, -0.0, 1e300], "truth": (True, False, None), "empty": [(), {}]},
    {"text": "Wo liegt die Leber? 肝 \u2003 \U0001f600", "long": "x" * 70_000},
]


def write(tmp_path, data: bytes) -> str:
    path = tmp_path / "questions.pkl"
    path.write_bytes(data)
    return str(path)


@pytest.fixture
def refused(tmp_path):
    """Asserts that a pickle is refused, with a reason, in a process that would show any effect."""

    def check(data: bytes, reason: str) -> None:
        with pytest.raises(ValueError, match=reason) as error:
            load_plain(write(tmp_path, data))
        assert "questions.pkl" in str(error.value)

    return check


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_of_every_protocol(tmp_path, protocol):
    assert load_plain(write(tmp_path, pickle.dumps(QUESTIONS, protocol))) == QUESTIONS


@pytest.mark.parametrize("protocol", [4, 5])
def test_sets_and_bytes(tmp_path, protocol):
    content = [{"a", "b"}, frozenset({1, ("x", 2)}), b"bytes", {(1, "a"): 2}]
    assert load_plain(write(tmp_path, pickle.dumps(content, protocol))) == content


def test_bytearray(tmp_path):
    assert load_plain(write(tmp_path, pickle.dumps([bytearray(b"ab")], 5))) == [bytearray(b"ab")]


def test_shared_objects_and_python_2(tmp_path):
    shared = {"a": 1}
    assert load_plain(write(tmp_path, pickle.dumps([shared, shared]))) == [shared, shared]
    # What Python 2 wrote for ["caf\xc3\xa9"], a str of bytes.
    assert load_plain(write(tmp_path, b"\x80\x02]U\x05caf\xc3\xa9a.")) == ["café"]


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Plain:
    def __init__(self):
        self.x = 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {marker}",)),
        (builtins.eval, ("open('{marker}', 'w')",)),
        (subprocess.Popen, (["touch", "{marker}"],)),
        (builtins.getattr, ("", "upper")),
    ],
)
def test_nothing_is_ever_called(tmp_path, refused, protocol, function, arguments):
    marker = tmp_path / "ran"
    fill = lambda part: part.format(marker=marker)  # noqa: E731
    arguments = tuple(
        [fill(part) for part in argument] if isinstance(argument, list) else fill(argument)
        for argument in arguments
    )
    for content in (Runs(function, *arguments), [QUESTIONS, {"a": Runs(function, *arguments)}]):
        refused(pickle.dumps(content, protocol), "a name to import|a call of a function")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_objects_of_classes(refused, protocol):
    refused(pickle.dumps(Plain(), protocol), "a name to import")
    refused(pickle.dumps(Plain, protocol), "a name to import")
    refused(pickle.dumps(len, protocol), "a name to import")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"cos\nsystem\n.", "GLOBAL"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "STACK_GLOBAL"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(S'a'\no.", "OBJ"),
        (b"\x80\x02N)\x81.", "NEWOBJ"),
        (b"\x80\x04N)}\x92.", "NEWOBJ_EX"),
        (b"N)R.", "REDUCE"),
        (b"]}b.", "BUILD"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02\x83\x01\x00.", "EXT2"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "EXT4"),
        (b"Pid\n.", "PERSID"),
        (b"NQ.", "BINPERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x05\x97\x98.", "NEXT_BUFFER"),
    ],
)
def test_each_instruction_that_leaves_plain_data(refused, data, name):
    refused(data, rf"it holds .*\({name} at byte")


def test_no_instruction_is_forgotten():
    plain = (
        "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES "
        "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 NONE NEWTRUE NEWFALSE UNICODE SHORT_BINUNICODE "
        "BINUNICODE BINUNICODE8 FLOAT BINFLOAT EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE "
        "TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET POP "
        "DUP MARK POP_MARK GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE PROTO STOP FRAME"
    )
    every = {operation.name for operation in pickletools.opcodes}
    assert every - set(unpickle._REFUSED) == set(plain.split())


def test_a_registered_extension_is_not_looked_up(refused):
    copyreg.add_extension("os", "system", 240)
    try:
        refused(b"\x80\x02\x82\xf0(S'true'\ntR.", "a registered extension")
    finally:
        copyreg.remove_extension("os", "system", 240)


def test_the_reader_itself_refuses_what_following_would_miss(tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "_follow", lambda data: None)
    marker = tmp_path / "ran"
    for data in (pickle.dumps(Runs(os.system, f"touch {marker}")), b"Pid\n.", b"cos\nsystem\n."):
        with pytest.raises(ValueError, match="it asks for"):
            load_plain(write(tmp_path, data))
    assert not marker.exists()


# Each exhausts memory, time or the C stack in a plain `pickle.loads`.


def nested(count: int, open_: bytes, close: bytes) -> bytes:
    return b"\x80\x04" + open_ * count + close * count + b"."


def laughs(levels: int, width: int) -> bytes:
    """A list of ``width`` times the same list of ``width`` times ..., in a few hundred bytes."""
    data = b"\x80\x04]\x94"
    for level in range(levels):
        data += b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * (width - 1) + b"e\x94"
    return data + b"."


def same_hashes(count: int) -> bytes:
    """A dict of numbers with one hash: reading it takes time quadratic in their count."""
    data = b"\x80\x02}("
    for index in range(1, count + 1):
        number = (index * (2**61 - 1)).to_bytes(12, "little")
        data += b"\x8a\x0c" + number + b"N"
    return data + b"u."


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (nested(10_000, b"]", b"a")[:-2] + b".", "containers more than 20 deep"),
        (b"\x80\x04)" + b"\x85" * 100_000 + b".", "tuples more than 20 deep"),
        # A key nested so deep would overflow the C stack when it is hashed.
        (b"\x80\x04})" + b"\x85" * 1_000_000 + b"Ns.", "tuples more than 20 deep"),
        # A key whose parts are shared takes 8 ** 15 steps to hash.
        (
            b"\x80\x04}N\x94"
            + b"".join(b"(" + (b"h" + bytes([k])) * 8 + b"t\x94" for k in range(15))
            + b"Ns.",
            "keys other than text",
        ),
        (same_hashes(20_000), "keys other than text: more than 10,000"),
        (laughs(15, 10), "unfolds to more than"),
        (b"\x80\x04]\x94h\x00a.", "containers more than 20 deep"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "LONG_BINPUT of 2147483647"),
        (b"Np2000000000\n.", "PUT of 2000000000"),
        (b"Np-1\n.", "PUT of -1|not read"),
        (b"\x8d" + struct.pack("<Q", 2**62) + b"x.", "not read"),
        (b"L" + b"9" * 100_000 + b"L\n.", "not read"),
    ],
)
def test_bombs(refused, data, reason):
    refused(data, reason)


def test_a_byte_that_makes_a_dict_makes_no_more_than_so_many(refused, monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_OPERATIONS", 1000)
    refused(b"\x80\x04" + b"}" * 1100 + b".", "more than 1,000 instructions")


def test_size_cap(refused, monkeypatch):
    monkeypatch.setattr(unpickle, "MAX_BYTES", 2**20)
    refused(pickle.dumps("x" * 2**20), "more than 1 MiB")


@pytest.mark.parametrize(
    "data",
    [b"", b".", b"N", b"junk", b"a.", b"t.", b"e.", b"(", b"h\x07.", b"0.", b"2.", b"(.", b"]s.",
     b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", b"\x80\xff.", b"}]Ns.", b"N.N.",
     pickle.dumps(QUESTIONS)[:-7], b"q\x00.", b"(q\x00."],
)  # fmt: skip
def test_broken_files_are_named(refused, data):
    refused(data, "fetch it again")


def test_no_bomb_reaches_memory(tmp_path):
    """The worst of them in a process of 512 MiB."""
    path = write(tmp_path, b"\x80\x02Nr\xff\xff\xff\x7f.")
    code = (
        "import resource, sys\n"
        "from llava_mole.data.sources.unpickle import load_plain\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29))\n"
        "try:\n    load_plain(sys.argv[1])\nexcept ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert "LONG_BINPUT of 2147483647" in done.stdout, done.stderr
