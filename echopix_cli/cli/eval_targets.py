"""Where an evaluation writes to: places that can be written, and files that are its own to replace."""

from __future__ import annotations

import json
import os
from pathlib import Path

from echopix_cli.errors import UsageError
from echopix_cli.files import check_target

_MOST = 2**26  # bytes of a file that are looked at


def check_targets(output: Path | None, items: Path | None, plot: Path | None, force: bool) -> None:
    """Refuse, before anything is measured, files that cannot be written or that something else has written.

    Raises:
        UsageError: there is one.
    """
    targets = [path for path in (output, items, plot) if path is not None]
    for path in targets:
        check_target(path)
    if len({path.resolve() for path in targets}) < len(targets):
        raise UsageError("--output, --items and --plot name one file twice", "give each a name of its own")
    if plot is not None:
        from echopix_cli.evaluation.plot import check_plot

        check_plot(plot)
    if force:
        return
    if output is not None and os.path.lexists(output) and not _is_report(output):
        raise _foreign(output, "report of an evaluation")
    if plot is not None and os.path.lexists(plot) and not _is_plot(plot):
        raise _foreign(plot, "plot of an evaluation")


def _foreign(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} exists and is no {what}", "name another file, or add --force to replace it")


def _is_report(path: Path) -> bool:
    """Whether a file is empty or was written by ``--output``."""
    content = _content(path)
    if not content:
        return content is not None
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"schema_version", "echopix_version", "settings"} <= record.keys()


def _is_plot(path: Path) -> bool:
    """Whether a file is empty or was drawn by ``--plot``, whose library names itself at the beginning."""
    content = _content(path)
    return content is not None and (not content or b"atplotlib" in content[:2048])


def _content(path: Path) -> bytes | None:
    """Of a regular file that can be read, as much as is looked at; None of all else."""
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file:
            return file.read(_MOST)
    except OSError:
        return None
