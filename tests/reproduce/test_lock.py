import subprocess
import sys
import time

import pytest

from llava_mole.reproduce.lock import Held, held, holder, lock_file

HOLD = """
import sys, time
from pathlib import Path
from llava_mole.reproduce.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_has_one_process_and_a_killed_one_leaves_it_free(tmp_path):
    run = tmp_path / "runs/x"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        assert holder(run).startswith(f"process {other.pid} on ")
        with pytest.raises(Held, match=f"process {other.pid} on "), held(run, patience=0.2):
            pass
    finally:
        other.kill()
        other.wait()
    assert lock_file(run).is_file()
    assert holder(run) is None
    with held(run):
        pass


def test_a_process_that_is_dying_is_waited_for(tmp_path):
    run = tmp_path / "x"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True
    )
    other.stdout.readline()
    started = time.monotonic()
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {other.pid}"])
    with held(run):
        assert time.monotonic() - started < 5
    other.wait()
    killer.wait()
