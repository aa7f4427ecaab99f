"""Ctrl-C and SIGTERM: at any time, and in commands that end their current item first."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn


def terminate(number: int, frame: object) -> NoReturn:
    """End the process by SIGTERM as Ctrl-C does, through whatever cleans up; process 1 of a container too, for which
    the system does nothing by itself."""
    sys.exit(128 + number)


@contextmanager
def stopping(stop: Callable[[], None] = lambda: None) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM call ``stop``; the list then holds the signal. A second one ends the process at once."""
    received: list[int] = []

    def take(number: int, frame: object) -> None:
        if received:
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h")  # a progress bar hides the cursor
            os._exit(128 + number)
        received.append(number)
        stop()

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
