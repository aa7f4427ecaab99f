"""Whether the disk refused some of what was to be read of a file: another time it may give that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from echopix_cli.media.recall import leave, take

_refusals = 0  # readings that failed, in this process


@dataclass
class Reading:
    """Of one file, and whether the disk ``refused`` some of it, now or for an earlier window of the same file.

    What was left by the reading of that window may lack what was refused then.
    """

    refused: bool = False


class _Refused:
    """Left for the next window of a file of which something was refused."""


def count_refusal() -> None:
    """A reading has failed."""
    global _refusals
    _refusals += 1


@contextmanager
def watched(path: str | os.PathLike[str]) -> Iterator[Reading]:
    """Find out whether the disk refuses some of a file while it is read; known when the block ends."""
    before, reading, left = _refusals, Reading(), take(path, _Refused)
    try:
        yield reading
    finally:
        reading.refused = left is not None or _refusals > before
        if reading.refused:
            leave(path, _Refused(), lambda: None)
