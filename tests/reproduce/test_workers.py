"""Processes are kept for several runs, and not for all of a long study."""

import os
from collections import deque
from types import SimpleNamespace

from llava_mole.reproduce import execute
from llava_mole.reproduce.worker import Reply


def answer_with_pid(connection, number):
    while True:
        job = connection.recv()
        connection.send(Reply(job.run.hash, None, str(os.getpid())))


def test_a_process_gives_way_after_so_many_runs(monkeypatch):
    monkeypatch.setattr(execute, "work", answer_with_pid)
    monkeypatch.setattr(execute, "RUNS_A_PROCESS", 2)
    jobs = deque(SimpleNamespace(run=SimpleNamespace(hash=str(n))) for n in range(5))
    with execute._Workers(1) as workers:
        replies = list(workers.do(jobs))
    assert [reply.hash for reply in replies] == ["0", "1", "2", "3", "4"]
    pids = [reply.error for reply in replies]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert len(set(pids)) == 3
