"""How a batch ends: by signals, a reader that has left, a disk that is full."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

import pytest
from batch_files import asked, records_of
from waiting import lines_in, wait_until

from echopix_cli.batch.journal import Journal


@pytest.fixture
def many(clips: dict[str, Path], tmp_path: Path) -> Path:
    """More files than are asked before a signal comes."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        os.link(clips["dark"], folder / f"{number:03}.m4a")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "flags", "again"),
    [
        (signal.SIGINT, 130, (), "run again to resume"),
        (signal.SIGTERM, 143, ("--overwrite",), "run again without --overwrite to resume"),
    ],
)
def test_a_signal_ends_it_in_order(
    ask, spawn, many: Path, tmp_path: Path, number: signal.Signals, code: int, flags: tuple[str, ...], again: str
) -> None:
    """To the whole process group, as a terminal and a service manager send it. Until then, nobody else may write."""
    out = tmp_path / "out.jsonl"
    with spawn(many, "What?", "-o", out, *flags) as batch:
        wait_until(lambda: lines_in(out) >= 3, process=batch)
        for flag in ("--resume", "--overwrite"):
            second = ask(many, "What?", "-o", out, flag)
            assert second.code == 2
            assert "another process writes" in second.err
        assert batch.poll() is None
        os.killpg(batch.pid, number)
        stdout, stderr = batch.communicate(timeout=60)
    records = records_of(out)
    done = len(records)
    assert 3 <= done < 300
    assert (batch.returncode, stdout) == (code, "")
    assert stderr == f"error: Interrupted; {done} of 300 done, {again}\n"
    assert [record["media"] for record in records if "error" in record] == []
    for file in sorted(many.iterdir())[done + 2 :]:
        file.unlink()
    ran = ask(many, "What?", "-o", out)
    assert (ran.code, ran.err) == (0, f"note: 2 answered, 0 failed, {done} before\n")


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(spawn, many: Path, tmp_path: Path) -> None:
    """The first one waits for an answer that takes minutes; here, for a process that stands still."""
    out = tmp_path / "out.jsonl"
    with spawn(many, "What?", "-o", out) as batch:
        wait_until(lambda: lines_in(out) >= 1, process=batch)
        os.kill(batch.pid, signal.SIGSTOP)  # so that both arrive before it can do anything
        os.kill(batch.pid, signal.SIGINT)
        os.kill(batch.pid, signal.SIGTERM)
        os.kill(batch.pid, signal.SIGCONT)
        _, stderr = batch.communicate(timeout=60)
    assert batch.returncode == 143  # of the second
    assert stderr == ""
    assert records_of(out)


@pytest.mark.slow
def test_head_has_seen_enough(spawn, many: Path) -> None:
    """No traceback, no complaint about a pipe, and the rest is not asked."""
    with spawn(many, "What?", "--quiet") as batch:
        assert batch.stdout is not None and batch.stderr is not None
        head = subprocess.run(["head", "-1"], stdin=batch.stdout, capture_output=True, text=True, timeout=120)
        batch.stdout.close()
        assert batch.stderr.read() == ""
        assert batch.wait(60) == 141
    assert json.loads(head.stdout)["media"] == str(many / "000.m4a")


def test_a_disk_that_is_full_ends_it_with_what_was_done(ask, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        ran = ask(sounds, "What?", "-o", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        f"error: cannot write {out}: File too large",
        "  try: make room or name another --output, and run again",
    ]
    done = len(records_of(out))
    assert 1 <= done < 6
    ran = ask(sounds, "What?", "-o", out)
    assert (ran.code, ran.err) == (0, f"note: {6 - done} answered, 0 failed, {done} before\n")
    assert sorted(asked(records_of(out))) == [(f"{number}.m4a", "What?") for number in range(6)]


@pytest.mark.parametrize("when", [2, 6])
def test_an_output_that_is_removed_is_never_success(
    ask, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """In the middle, and after the last record."""
    out, append, written = tmp_path / "out.jsonl", Journal.append, []

    def appending(self: Journal, record: dict[str, Any]) -> None:
        append(self, record)
        written.append(record)
        if len(written) == when:
            os.remove(out)

    monkeypatch.setattr(Journal, "append", appending)
    ran = ask(sounds, "What?", "-o", out)
    assert (ran.code, len(written)) == (1, when)
    assert ran.err.splitlines()[0].startswith(f"error: {out} was changed by somebody else")
    assert "answered" not in ran.err
    assert not out.exists()


def test_a_clip_that_is_ready_just_as_waiting_ends_is_taken(ask, monkeypatch: pytest.MonkeyPatch, sounds: Path) -> None:
    """Between a wait that ends and a look at what was waited for, it may become ready."""
    result = Future.result

    def late(self: Future[Any], timeout: float | None = None) -> Any:
        if timeout is None:
            return result(self)
        wait([self])
        raise NotYet

    monkeypatch.setattr("echopix_cli.batch.run.Future.result", late)
    ran = ask(sounds / "0.m4a", sounds / "1.m4a", "What?", "-q")
    assert (ran.code, len(ran.out.splitlines())) == (0, 2)
