"""Workers that are closed, interrupted or left behind: nothing goes on after those who wanted it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

import pytest
from places import ROOT
from processes import alive, gone, pid_of

from echopix_cli.batch.workers import Workers
from echopix_cli.decoding.worker import Worker
from echopix_cli.errors import EchopixError


@pytest.fixture
def endless(tmp_path: Path) -> str:
    """A file that takes minutes to read, and no room on the disk."""
    path = tmp_path / "endless.mp4"
    with open(path, "wb") as file:
        file.truncate(200 * 2**30)
    return str(path)


def test_closing_ends_what_is_under_way(clips: dict[str, Path], endless: str) -> None:
    workers = Workers(2, timeout=600.0)
    pids: SimpleQueue[int] = SimpleQueue()

    def read(worker: Worker) -> str:
        worker.fingerprint(str(clips["dark"]))
        pids.put(pid_of(worker))
        return worker.fingerprint(endless)

    busy = [workers.submit(read) for _ in range(2)]
    waiting = [workers.submit(read) for _ in range(3)]
    taken = {pids.get(timeout=60) for _ in busy}
    time.sleep(0.2)
    began = time.monotonic()
    workers.close()
    assert time.monotonic() - began < 10
    assert len(taken) == 2
    assert not any(alive(pid) for pid in taken)
    assert all(isinstance(future.exception(1), EchopixError) for future in busy)
    assert all(future.cancelled() for future in waiting)


def test_closing_while_workers_start(clips: dict[str, Path]) -> None:
    for pause in (0.0, 0.001, 0.01, 0.03, 0.1):
        workers = Workers(2, timeout=600.0)
        futures = [workers.submit(lambda worker: worker.fingerprint(str(clips["dark"]))) for _ in range(4)]
        time.sleep(pause)
        workers.close()
        assert all(future.done() for future in futures)
        assert all(worker._pid is None for worker in workers._workers)
        for future in futures:
            if not future.cancelled() and (error := future.exception()) is not None:
                assert isinstance(error, EchopixError)


SCRIPT = """
import os, signal, sys, threading, time
from echopix_cli.decoding.worker import Worker
worker = Worker(600.0)
"""


@contextmanager
def started(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT + code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as in a terminal: the group is the command and what it started
    ) as batch:
        try:
            yield batch
        finally:
            with suppress(ProcessLookupError):
                os.killpg(batch.pid, signal.SIGKILL)


def test_workers_die_with_a_batch_that_is_killed(endless: str, clips: dict[str, Path]) -> None:
    """Also one that is busy: nobody is left to read its answer."""
    code = """
worker.fingerprint(sys.argv[2])
print(worker._pid, flush=True)
worker.fingerprint(sys.argv[1])
"""
    with started(code, endless, str(clips["dark"])) as batch:
        assert batch.stdout is not None and batch.stderr is not None
        pid = int(batch.stdout.readline())
        time.sleep(0.3)
        assert alive(pid)
        batch.kill()
        batch.wait()
        assert gone(pid)
        assert batch.stderr.read() == ""  # which also waits until nobody holds it any more


def test_ctrl_c_is_the_batchs_alone(clips: dict[str, Path]) -> None:
    """Every process of the terminal gets it, from their first moment on."""
    code = """
received = []
signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
done = threading.Event()
def hit():
    while not done.wait(0.02):
        os.killpg(0, signal.SIGINT)
threading.Thread(target=hit).start()
sums = {worker.fingerprint(sys.argv[1]) for _ in range(20)}
time.sleep(0.2)
done.set()
worker.close()
print(len(sums), len(received) > 10)
"""
    with started(code, str(clips["dark"])) as batch:
        assert batch.communicate(timeout=60) == ("1 True\n", "")
    assert batch.returncode == 0


def test_ctrl_c_ends_a_wait_and_the_process_goes_on(endless: str, clips: dict[str, Path]) -> None:
    """Without a handler of its own: what waits is the main thread."""
    code = """
worker.fingerprint(sys.argv[2])
first = worker._pid
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    worker.fingerprint(sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", worker._pid)
print(len(worker.fingerprint(sys.argv[2])), worker._pid != first)
worker.close()
"""
    with started(code, endless, str(clips["dark"])) as batch:
        assert batch.communicate(timeout=60) == ("interrupted None\n64 True\n", "")


LEFT = """
import fcntl
held = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
fcntl.flock(held, fcntl.LOCK_EX)
if sys.argv[3] == "afresh":
    import torch
from echopix_cli.decoding import nursery
nursery.warm_up()
first = nursery._started
assert isinstance(first, int) == (sys.argv[3] == "forked"), first
worker.fingerprint(sys.argv[1])
print(first if isinstance(first, int) else first.pid, worker._pid, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["forked", "afresh"])
def test_nothing_is_held_or_left_by_a_command_that_is_killed(clips: dict[str, Path], tmp_path: Path, how: str) -> None:
    """No lock that it held, none of its streams, no process, and no file; however the first process was started."""
    import fcntl

    (tmp_path / "tmp").mkdir()
    lock = tmp_path / "lock"
    # A module of this name in the current folder would be imported by whoever looks there first.
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the current folder')")
    with subprocess.Popen(
        [sys.executable, "-P", "-c", SCRIPT + LEFT, str(clips["dark"]), str(lock), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)},
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        pids = [int(word) for word in command.stdout.readline().split()]
        assert len(pids) == 2, command.stderr.read()
        assert all(alive(pid) for pid in pids)
        command.kill()
        assert command.stdout.read() == command.stderr.read() == "", "which waits until nobody holds them"
        command.wait()
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert all(gone(pid) for pid in pids)
    assert os.listdir(tmp_path / "tmp") == []


def test_a_script_without_a_guard_may_decode(clips: dict[str, Path]) -> None:
    """Nothing imports the script again, as multiprocessing would."""
    code = "print(worker.decode(sys.argv[1], None or __import__('echopix_cli.media').media.DecodePlan()).clip.path)"
    with started(code, str(clips["dark"])) as script:
        assert script.communicate(timeout=60) == (f"{clips['dark']}\n", "")
