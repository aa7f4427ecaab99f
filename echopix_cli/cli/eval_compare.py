"""``echopix eval --compare``: two reports about the same questions, beside one another."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.cli import options as opt
from echopix_cli.cli.parameters import Parameter
from echopix_cli.errors import UsageError

if TYPE_CHECKING:
    from echopix_cli.evaluation.marks import Marks

_OWN = ("compare", "output", "force", "json", "markdown", *opt.PRINTING)  # options that a comparison heeds
_AGAIN = "echopix eval … --output FILE, with the same data in both"


def read_report(path: Path) -> tuple[Mapping[str, Any], Marks]:
    """A report's content, and which of its questions were answered rightly.

    Raises:
        UsageError: it cannot be read, or is no report that says so.
    """
    from echopix_cli.evaluation.marks import marks_in

    try:
        record = jsonlib.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", _AGAIN) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is no report of an evaluation", _AGAIN) from None
    if not isinstance(record, dict) or not {"schema_version", "settings"} <= record.keys():
        raise UsageError(f"{path} is no report of an evaluation", _AGAIN)
    try:
        return record, marks_in(record)
    except ValueError as error:
        raise UsageError(f"{path} cannot be compared: {error}", _AGAIN) from None


def compared(first: Path, second: Path) -> dict[str, Any]:
    """Two reports beside one another, as they are written.

    Raises:
        UsageError: they cannot be compared.
    """
    from echopix_cli.cli.eval_records import pair_record
    from echopix_cli.evaluation.compare import compare

    (ours, marks), (theirs, others) = read_report(first), read_report(second)
    try:
        pair = compare(marks, others)
    except ValueError as error:
        raise UsageError(f"{first} and {second} cannot be compared: {error}", _AGAIN) from None
    return pair_record(pair, [(str(first), ours), (str(second), theirs)])


def compare_reports(
    run: opt.Run,
    files: tuple[Path, Path],
    typed: Mapping[str, Parameter],
    output: Path | None,
    force: bool,
    json: bool,
    markdown: bool,
) -> None:
    """Two reports beside one another, written and shown.

    Args:
        run: the command.
        files: of the reports.
        typed: what the command line gives, of which a comparison heeds no option about questions.
        output, force, json, markdown: as they were given.

    Raises:
        UsageError: other options ask for an evaluation, or the two cannot be compared.
    """
    if others := [own.names[0] for name, own in typed.items() if name not in _OWN]:
        raise UsageError(f"--compare asks no questions, and {others[0]} is about those", f"leave {others[0]} out")
    run.require_output(json or markdown or output, "--json, --markdown or --output FILE")
    from echopix_cli.cli.eval_targets import check_targets

    check_targets(output, None, None, force, reads=files, comparison=True)
    record = compared(*files)
    if output is not None:
        from echopix_cli.cli.own_files import write_own

        write_own(output, (jsonlib.dumps(record, indent=2) + "\n").encode())
    if json:
        run.output.record(record)
    elif markdown:
        from echopix_cli.cli.eval_markdown import pair_markdown

        run.output.answer(pair_markdown(record), end="")
    elif not run.settings.quiet:
        from echopix_cli.cli.eval_tables import pair_tables

        run.output.show(pair_tables(record))
