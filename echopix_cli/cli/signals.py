"""Ctrl-C and SIGTERM: at any time, and in commands that end their current item first."""

from __future__ import annotations

import os
import signal
import sys
import threading
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
            _end_at_once(number)
        received.append(number)
        stop()

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def unbroken() -> Iterator[None]:
    """Ctrl-C waits for the end of what cannot be done again once it was broken off, such as the import of a library
    written in C; a second one ends the process at once. Where Ctrl-C is ignored, and in other threads, which it does
    not reach, nothing changes."""
    before, pressed = signal.getsignal(signal.SIGINT), list[int]()
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def take(number: int, frame: object) -> None:
        if pressed:
            _end_at_once(number)
        pressed.append(number)

    signal.signal(signal.SIGINT, take)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            before(signal.SIGINT, None)


def _end_at_once(number: int) -> NoReturn:
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h")  # a progress bar hides the cursor
    os._exit(128 + number)
