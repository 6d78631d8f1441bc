"""What every command of ``llava-mole`` does with an output that goes away."""

import os
import subprocess
import sys
from pathlib import Path

from llava_mole.cli.main import main


def test_another_broken_pipe_is_an_error(monkeypatch, capfd):
    def run(arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("llava_mole.cli.reproduce.run", run)
    assert main(["reproduce", "--scale", "tiny", "--study"]) == 2
    assert "Broken pipe" in capfd.readouterr().err


def test_a_reader_that_has_read_enough_is_no_error():
    words = "reproduce --table 4 --scale paper --status"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "llava_mole.cli.main", *words.split()],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            check=False,
        )
    finally:
        os.close(write)
    assert done.returncode == 141
    assert "Broken pipe" not in done.stderr
    assert "error" not in done.stderr.lower()
