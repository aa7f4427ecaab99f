"""A run's folder belongs to one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.files import made

LOCK = ".lock"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """A run's folder, in which no other process trains meanwhile; made, and removed again where it stays empty.

    Nothing happens where something lies there that is no folder. The processes that prepare batches do not inherit the
    lock, and a killed process leaves none. Disks that know no locks are used without.

    Raises:
        UsageError: another process trains there.
        EchopixError: the disk refuses.
    """
    if folder.exists() and not folder.is_dir():
        yield
        return
    path = folder / LOCK
    with ExitStack() as held:
        try:
            held.enter_context(made(folder))
            held.callback(os.close, _locked(path))
        except BlockingIOError:
            raise UsageError(
                f"another process trains in {folder}", "wait for it or end it, or give this run another --out"
            ) from None
        except OSError as error:
            raise EchopixError(
                f"cannot write {path}: {error.strerror or error}", "name a folder that can be written with --out"
            ) from error
        held.callback(path.unlink, missing_ok=True)  # while it is locked, so that nobody else has it
        yield


def _locked(path: Path) -> int:
    """A file's descriptor, and its lock. Whoever held that may have removed the file meanwhile: then a new one's."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            _lock(file)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file)):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # systems differ in which of the two says that it is taken
        raise BlockingIOError(error.errno, error.strerror) from error
    except OSError:
        pass
