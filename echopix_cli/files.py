"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from echopix_cli.errors import EchopixError, UsageError

_BLOCK = 1 << 20  # bytes read at a time
_HINT = "name a file in a folder that exists and can be written"


def check_target(path: Path) -> None:
    """Refuse a place where no file can go before hours are spent on what goes there.

    Raises:
        UsageError: its folder does not exist or cannot be written, or it is a folder itself.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", _HINT)
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist", _HINT)
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"the folder {path.parent} cannot be written", _HINT)


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the target and rename once it is on the disk; an existing file is replaced.

    Raises:
        EchopixError: the disk or the folder refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    except OSError as error:
        raise EchopixError(f"cannot write {path}: {error.strerror or error}", _HINT) from error
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk.

    Raises:
        OSError: they do not get there.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: str | os.PathLike[str], advance: Callable[[int], None] = lambda count: None) -> str:
    """A file's SHA-256 in hexadecimal digits; ``advance`` is told of the bytes read.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


def stated_bytes(path: Path, name: str) -> int | None:
    """What a file of Linux's ``/proc`` states in kB under a name, in bytes; None where it does not."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
