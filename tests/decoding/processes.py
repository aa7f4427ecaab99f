"""Processes that a test looks at from outside."""

from __future__ import annotations

import time
from pathlib import Path

from echopix_cli.decoding.worker import Worker


def pid_of(worker: Worker) -> int:
    assert worker._pid is not None
    return worker._pid


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)
