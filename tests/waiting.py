"""Waiting for what another process or thread is about to do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PATIENCE = 120.0  # seconds, of a machine that does much else

T = TypeVar("T")


def wait_until(true: Callable[[], T], seconds: float = PATIENCE, process: subprocess.Popen[str] | None = None) -> T:
    """What a function gives, once that is true.

    Args:
        true: called again and again.
        seconds: for which it may be otherwise.
        process: one that has to run meanwhile.
    """
    until = time.monotonic() + seconds
    while not (found := true()):
        assert process is None or process.poll() is None, f"it has ended: {process.communicate()}"
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.01)
    return found


def lines_in(path: Path) -> int:
    """How many whole lines a file has; none where it is not there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0
