"""Processes are kept for several runs and one that dies is replaced; a run is done once, alone."""

import os
from collections import deque
from types import SimpleNamespace

import pytest

from llava_mole.reproduce import execute, worker
from llava_mole.reproduce.lock import holder
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.runs import resolve_runs
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import select
from llava_mole.reproduce.store import Store
from llava_mole.reproduce.worker import FAILED, Job, Reply, do
from tests.reproduce.test_store import line
from tests.reproduce.tiny_scale import write_experiments


def answer_with_pid(connection, number):
    while True:
        job = connection.recv()
        connection.send(Reply(job.run.hash, str(os.getpid())))


def die_before_the_job_is_read(connection, number):
    connection.poll(None)
    os._exit(3)


def jobs(folder, count):
    return deque(
        SimpleNamespace(run=SimpleNamespace(hash=str(n), folder=folder / str(n)))
        for n in range(count)
    )


def test_a_process_gives_way_after_so_many_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(execute, "work", answer_with_pid)
    monkeypatch.setattr(execute, "RUNS_A_PROCESS", 2)
    with execute._Workers(1) as workers:
        replies = list(workers.do(jobs(tmp_path, 5)))
    assert [reply.hash for reply in replies] == ["0", "1", "2", "3", "4"]
    pids = [reply.error for reply in replies]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert len(set(pids)) == 3


def test_a_process_that_dies_before_it_reads_its_job_fails_that_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(execute, "work", die_before_the_job_is_read)
    with execute._Workers(1) as workers:
        replies = list(workers.do(jobs(tmp_path, 2)))
    assert [reply.error for reply in replies] == ["its process ended with status 3"] * 2
    assert (tmp_path / "1" / FAILED).read_text() == "its process ended with status 3"


@pytest.fixture
def job(tmp_path):
    experiments = write_experiments(tmp_path)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    selected = select(rows, names=["llava-mix-1-1-0"])
    (run,) = resolve_runs(scale, rows, selected, (0,))
    return Job(run, scale, tmp_path / "results.jsonl", keep=False)


def test_a_directory_goes_when_its_line_is_written_and_before_anybody_else_is_at_it(
    job, monkeypatch
):
    def look_and_delete(folder, **_):
        assert holder(folder) is not None
        assert Store(job.results, "tiny").get(job.run) is not None
        rmtree(folder)

    rmtree = worker.shutil.rmtree
    monkeypatch.setattr(worker.shutil, "rmtree", look_and_delete)
    monkeypatch.setattr(worker, "_do", lambda one: line(one.run))
    assert do(job) == Reply(job.run.hash)
    assert not job.run.folder.exists()


def test_what_another_command_did_meanwhile_is_not_done_again(job, monkeypatch):
    monkeypatch.setattr(worker, "_do", lambda _: pytest.fail("done again"))
    Store(job.results, "tiny").add(line(job.run))
    # As with --keep-runs: it is the other command's to keep.
    job.run.folder.mkdir(parents=True)
    assert do(job) == Reply(job.run.hash)
    assert list(job.run.folder.iterdir()) == []


def test_a_line_that_cannot_be_written_fails_its_run_alone(job, monkeypatch):
    monkeypatch.setattr(worker, "_do", lambda one: line(one.run, by_task="x" * 3000))
    reply = do(job)
    assert "the most is 2000; give the row" in reply.error
    assert "the most is 2000" in (job.run.folder / FAILED).read_text()
    assert not job.results.exists()


def test_a_directory_with_another_config_is_refused_before_it_is_asked(job, monkeypatch):
    from llava_mole.config import dump
    from llava_mole.train.rundir import CONFIG, FINISHED

    monkeypatch.setattr(worker, "_ask", lambda *_: pytest.fail("asked"))
    job.run.folder.mkdir(parents=True)
    other = worker.replace(job.run.config, seed=5)
    dump(other, job.run.folder / CONFIG)
    (job.run.folder / "weights").write_bytes(b"1234")
    (job.run.folder / FINISHED).write_text('{"files": {"weights": 4}}')
    reply = do(job)
    assert "another config:\n  seed: 5 -> 0\nGive another output_dir, or delete" in reply.error
