"""Where an evaluation writes to: places that can be written, and files that are its own to replace."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from echopix_cli.cli.own_files import require_own
from echopix_cli.errors import UsageError
from echopix_cli.files import check_target

_OWN = {"schema_version", "echopix_version", "settings"}  # keys of what --output holds


def unfinished_of(output: Path) -> Path:
    """Where the answers of an evaluation lie until its report is written, where no file of items is named."""
    return output.with_name(f"{output.name}.unfinished.jsonl")


def check_targets(
    output: Path | None,
    items: Path | None,
    plot: Path | None,
    force: bool,
    *,
    reads: Iterable[Path] = (),
    comparison: bool = False,
) -> None:
    """Refuse, before anything is measured, files that cannot be written or that something else has written.

    Args:
        output, items, plot: as they were given.
        force: replace what something else has written, but nothing that is read.
        reads: files that are read, which need not exist.
        comparison: whether ``output`` is to hold two reports beside one another, not a report.

    Raises:
        UsageError: there is one.
    """
    targets = [path for path in (output, items, plot) if path is not None]
    for path in targets:
        check_target(path)
    if len({path.resolve() for path in targets}) < len(targets):
        raise UsageError("--output, --items and --plot name one file twice", "give each a name of its own")
    for path in reads:
        if any(_same(path, target) for target in targets):
            raise UsageError(f"{path} is read, and would be replaced", "name another file to write to")
    if plot is not None:
        from echopix_cli.evaluation.plot import check_plot

        check_plot(plot)
    if force:
        return
    hint = "name another file, or add --force to replace it"
    if output is not None:
        if comparison:
            require_own(output, "comparison of two reports", _is_comparison, hint)
        else:
            require_own(output, "report of an evaluation", _is_report, hint)
    if plot is not None:
        require_own(plot, "plot of an evaluation", _is_plot, hint)


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False  # one of them does not exist


def _is_report(content: bytes) -> bool:
    """Whether it was written by ``--output`` of an evaluation."""
    keys = _keys_of(content)
    return keys >= _OWN and "compared" not in keys


def _is_comparison(content: bytes) -> bool:
    """Whether it was written by ``--output`` of ``--compare``."""
    return _keys_of(content) >= _OWN | {"compared"}


def _keys_of(content: bytes) -> set[str]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return set()
    return set(record) if isinstance(record, dict) else set()


def _is_plot(content: bytes) -> bool:
    """Whether it was drawn by ``--plot``, whose library names itself at the beginning."""
    return b"atplotlib" in content[:2048]
