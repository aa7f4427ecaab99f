"""One model, many who want it: each in turn, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK = 0.1  # seconds between looks at whether to go on waiting


class Left(Exception):
    """Whoever waited no longer does."""


class Turns:
    """A queue for one thing that only one may use at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def __len__(self) -> int:
        """Who has it, and all who wait."""
        return len(self._waiting)

    @contextmanager
    def turn(self, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Wait for it, and have it within this context.

        Args:
            stop: asked while waiting, and before it is had.

        Raises:
            Left: ``stop`` said so.
        """
        own = object()
        with self._changed:
            self._waiting.append(own)
        try:
            with self._changed:
                while True:
                    if stop():
                        raise Left
                    if self._waiting[0] is own:
                        break
                    self._changed.wait(_LOOK)
            yield
        finally:
            with self._changed:
                self._waiting.remove(own)
                self._changed.notify_all()
