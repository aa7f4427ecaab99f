"""Signs that the reading of a file goes on, so that whoever waits for it can tell what is slow from what is stuck.

A packet, a decoded frame and a block of sound each count as one, and so do the first bytes that are read of a file that
was opened: seeking may read a long one through, and a demuxer that goes round in circles reads for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS = 1.0  # between two signs that are passed on

_listener: Callable[[], None] | None = None
_next = 0.0  # by the monotonic clock


@contextmanager
def felt(listener: Callable[[], None]) -> Iterator[None]:
    """Have a function called about once a second while reading goes on, by the thread that reads.

    One file at a time: it is the whole process's.
    """
    global _listener, _next
    _listener, _next = listener, 0.0
    try:
        yield
    finally:
        _listener = None


def beat() -> None:
    """Reading has come one step further."""
    global _next
    if _listener is not None and (now := time.monotonic()) >= _next:
        _next = now + _SECONDS
        _listener()
