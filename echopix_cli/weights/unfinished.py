"""Unfinished files in the hub's cache, which several stores may share: one process at a time writes or removes one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from echopix_cli.weights.store import Busy

PART = ".echopix.incomplete"  # ends the names of such files
PIECE = 2**20  # bytes kept at a time: no more are lost when the process is killed


@contextmanager
def owned(part: Path, blob: Path, waiting: Callable[[], None]) -> Iterator[BinaryIO | None]:
    """A part, open for appending, which no other process writes to or removes meanwhile.

    Args:
        part: that may or may not be there.
        blob: that it becomes.
        waiting: called before waiting for another process.

    Yields:
        the file; None where another process has made the blob of it.

    Raises:
        OSError: the disk refuses.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    while not blob.exists():
        with open(part, "ab", buffering=PIECE, opener=_no_link) as handle:
            if not _locks(handle, wait=False):
                waiting()
                _locks(handle, wait=True)
            if not _is_still(part, handle):
                continue  # given its place, or removed, while this process waited
            if blob.exists():
                part.unlink()
                break
            yield handle
            return
    yield None


def remove(part: Path) -> None:
    """Remove a part that nobody writes to.

    Raises:
        Busy: somebody does.
        OSError: the disk refuses.
    """
    with open(part, "rb", opener=_no_link) as handle:
        if not _locks(handle, wait=False):
            raise Busy(f"another process writes to {part}", "try again when it has ended")
        if _is_still(part, handle):
            part.unlink()


def _locks(handle: BinaryIO, *, wait: bool) -> bool:
    """Lock an open file; False where another process has it. Disks that know no locks are used without."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _is_still(part: Path, handle: BinaryIO) -> bool:
    """Whether a path leads to an open file."""
    return part.exists() and os.path.samestat(part.stat(), os.fstat(handle.fileno()))


def _no_link(path: str, flags: int) -> int:
    """Open a part, never through a link that somebody put in its place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
