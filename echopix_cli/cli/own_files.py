"""Files that a command writes: none that something else has written is replaced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from echopix_cli.errors import UsageError
from echopix_cli.files import check_target, write_whole

_MOST = 2**26  # bytes of a file that are looked at


def content_of(path: Path, most: int = _MOST) -> bytes | None:
    """The beginning of a regular file, enough to recognise it, or with -1 all of it; None where it cannot be read or is
    no regular file."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError:
        return None


def write_own(path: Path, content: bytes) -> None:
    """As :func:`~echopix_cli.files.write_whole`, at a name that the user gave: of a link, what it leads to is written,
    and who may read a file may do so afterwards.

    Raises:
        EchopixError: the disk or the folder refuses.
    """
    target = Path(os.path.realpath(path))
    try:
        mode = stat.S_IMODE(os.stat(target).st_mode)
    except OSError:
        write_whole(target, content)
    else:
        write_whole(target, content, mode=mode, masked=False)


def require_own(path: Path, what: str, is_own: Callable[[bytes], bool], hint: str) -> None:
    """Allow writing to a free name, or over an empty file or one of the same kind.

    Args:
        path: of the file.
        what: its kind, in words.
        is_own: whether content is of that kind.
        hint: what to do where it is not.

    Raises:
        UsageError: something else lies there, or no file can.
    """
    check_target(path)
    if os.path.lexists(path):
        content = content_of(path)
        if content is None or (content and not is_own(content)):
            raise UsageError(f"{path} exists and is no {what}", hint)
