"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from echopix_cli.errors import EchopixError, UsageError

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
    """Write beside the target, then rename; an existing file is replaced.

    Raises:
        EchopixError: the disk or the folder refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise EchopixError(f"cannot write {path}: {error.strerror or error}", _HINT) from error
    finally:
        partial.unlink(missing_ok=True)
