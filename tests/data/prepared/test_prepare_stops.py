"""Preparations that are stopped: whole or nothing, and the same bytes after going on."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
import pytest

from llava_mole.data.prepared.folder import load
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.sources import jsonstream
from llava_mole.data.sources.llava import LlavaSource
from tests.data.helpers import row, write_jsonl
from tests.data.prepared.many_pieces import PIECE_ITEMS, content_of, source_of, write_rows


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "PIECE_ITEMS", PIECE_ITEMS)
    return write_rows(tmp_path / "a.json")


@dataclass(frozen=True)
class _StopsAt(LlavaSource):
    """Dies in the piece that begins at ``offset``, as a power cut would."""

    offset: int = 0

    def read(self, piece):
        if piece.start == self.offset:
            raise KeyboardInterrupt
        yield from super().read(piece)


def test_a_stopped_preparation_goes_on(file, tmp_path, monkeypatch):
    whole = prepare(source_of(file), tmp_path / "whole")
    cut = list(source_of(file).pieces())
    with pytest.raises(KeyboardInterrupt):
        prepare(_StopsAt(str(file), "set", cut[5].start), tmp_path / "out")
    with pytest.raises(ValueError, match="its preparation was stopped: run it again"):
        load(tmp_path / "out")
    kept = sorted((tmp_path / "out.partial/pieces").glob("*.arrow"))
    assert [path.name for path in kept] == [f"{i:05d}.arrow" for i in range(5)]
    read = []
    honest = LlavaSource.read
    monkeypatch.setattr(LlavaSource, "read", lambda s, p: read.append(p) or honest(s, p))
    # One finished piece was damaged in between: it alone is done again.
    kept[2].write_bytes(kept[2].read_bytes()[:-10])
    assert prepare(source_of(file), tmp_path / "out").stamp == whole.stamp
    assert read == [cut[2], *cut[5:]]
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")


@pytest.mark.parametrize("moment", range(12))
def test_a_stop_while_the_folder_is_put_together(file, tmp_path, monkeypatch, moment):
    expected = prepare(source_of(file), tmp_path / "whole").stamp
    prepare(LlavaSource(str(file), "old"), tmp_path / "out")
    calls = []

    def stops(real):
        def call(*arguments, **keywords):
            calls.append(real)
            if len(calls) == 3 * moment + 10:
                raise KeyboardInterrupt
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patched:
        for name in ("replace", "rename"):
            patched.setattr(os, name, stops(getattr(os, name)))
        try:
            prepare(source_of(file), tmp_path / "out", overwrite=True)
        except KeyboardInterrupt:
            pass
        else:
            assert moment >= 10, "the stop came too late to test anything"
    assert prepare(source_of(file), tmp_path / "out", overwrite=True).stamp == expected
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "out", "whole"}


_SCRIPT = """
import sys
from llava_mole.data.prepared.prepare import prepare
from llava_mole.data.sources import jsonstream
from llava_mole.data.sources.llava import LlavaSource
if __name__ == "__main__":
    jsonstream.PIECE_ITEMS = 20
    prepare(LlavaSource(sys.argv[1], "set"), sys.argv[2], processes=int(sys.argv[3]))
"""


def test_kill_and_restart_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonstream, "PIECE_ITEMS", 20)
    path = write_jsonl(tmp_path / "a.jsonl", [row(f"r{i}", answer="A" * 200) for i in range(5000)])
    (tmp_path / "script.py").write_text(_SCRIPT)
    for processes in (1, 2):
        output = tmp_path / f"out{processes}"
        command = [sys.executable, tmp_path / "script.py", path, output, str(processes)]
        child = subprocess.Popen(command)
        pieces = tmp_path / f"out{processes}.partial/pieces"
        while not (pieces / "00010.json").exists():
            assert child.poll() is None
            time.sleep(0.002)
        family = psutil.Process(child.pid).children(recursive=True)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not output.exists()
        assert len(list(pieces.glob("*.json"))) < 250
        # Its workers end with it, or they would go on writing.
        assert psutil.wait_procs(family, timeout=10)[1] == []
        prepare(source_of(path), output, processes=3 - processes)
    whole = prepare(source_of(path), tmp_path / "whole")
    assert len(whole.shards) == 250
    for processes in (1, 2):
        assert content_of(tmp_path / f"out{processes}") == content_of(whole.folder)


@dataclass(frozen=True)
class _Waits(LlavaSource):
    """Says that it reads, and goes on when it may."""

    def read(self, piece):
        _Waits.reading.append(piece)
        assert _Waits.may_go_on.wait(30)
        yield from super().read(piece)


def test_two_at_once_do_the_work_once(file, tmp_path):
    _Waits.reading, _Waits.may_go_on = [], threading.Event()
    source = _Waits(str(file), "set")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prepare, source, tmp_path / "out")
        while not _Waits.reading:
            time.sleep(0.01)
        second = pool.submit(prepare, source, tmp_path / "out")
        time.sleep(0.3)
        assert len(_Waits.reading) == 1
        _Waits.may_go_on.set()
        assert first.result() == second.result()
    assert _Waits.reading == list(source.pieces())
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "out"}


def test_pieces_of_another_content_are_not_gone_on_from(file, tmp_path):
    cut = list(source_of(file).pieces())
    with pytest.raises(KeyboardInterrupt):
        prepare(_StopsAt(str(file), "set", cut[5].start), tmp_path / "out")
    # As long as before, so that its pieces begin where they did.
    file.write_text(file.read_text().replace("A 1", "B 1"))
    answers = [
        turns[1]["content"] for turns in prepare(source_of(file), tmp_path / "out").rows()["turns"]
    ]
    assert answers == [f"{'B' if str(i)[0] == '1' else 'A'} {i}" for i in range(60) if i % 7]
