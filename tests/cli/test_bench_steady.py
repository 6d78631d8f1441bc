"""A benchmark's process is started again once, and nobody else's."""

import os
import sys

import pytest

from llava_mole.cli.bench import steady


@pytest.fixture
def started(monkeypatch):
    """What `os.execve` was called with; the process stays."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(sys, "platform", "linux")
    for name in steady.MALLOC | steady.ONE_ARENA:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_the_command_is_started_again_with_what_is_missing(started, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["llava-mole", "bench", "step", "--synthetic"])
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "4")  # somebody's own stays
    steady.hold_memory("step", **steady.ONE_ARENA)
    ((program, words, environment),) = started
    assert program == sys.executable
    assert words == sys.orig_argv
    assert environment["MALLOC_MMAP_MAX_"] == "4"
    assert environment["MALLOC_ARENA_MAX"] == "1"
    assert "starting again with MALLOC_TRIM_THRESHOLD_=" in capsys.readouterr().err
    monkeypatch.setattr(os, "environ", environment)
    steady.hold_memory("step", **steady.ONE_ARENA)
    assert len(started) == 1


def test_callers_of_main_stay(started, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "bench", "layer"])
    steady.hold_memory("step")
    assert started == []
