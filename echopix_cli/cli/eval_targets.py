"""Where an evaluation writes to: places that can be written, and files that are its own to replace."""

from __future__ import annotations

import json
from pathlib import Path

from echopix_cli.cli.own_files import require_own
from echopix_cli.errors import UsageError
from echopix_cli.files import check_target


def unfinished_of(output: Path) -> Path:
    """Where the answers of an evaluation lie until its report is written, where no file of items is named."""
    return output.with_name(f"{output.name}.unfinished.jsonl")


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
    hint = "name another file, or add --force to replace it"
    if output is not None:
        require_own(output, "report of an evaluation", _is_report, hint)
    if plot is not None:
        require_own(plot, "plot of an evaluation", _is_plot, hint)


def _is_report(content: bytes) -> bool:
    """Whether it was written by ``--output``."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"schema_version", "echopix_version", "settings"} <= record.keys()


def _is_plot(content: bytes) -> bool:
    """Whether it was drawn by ``--plot``, whose library names itself at the beginning."""
    return b"atplotlib" in content[:2048]
