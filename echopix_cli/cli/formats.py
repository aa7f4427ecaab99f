"""Records on stdout: JSON lines, or tables for spreadsheets and shell tools."""

from __future__ import annotations

from typing import Any

from echopix_cli.cli.output import Output, inert
from echopix_cli.errors import UsageError

FORMATS = ("text", "jsonl", "tsv", "csv")
COLUMNS = ("id", "media", "question", "answer", "probability", "audio", "kept", "total", "notices", "error")
_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n"})


def wanted_format(named: str | None, json: bool) -> str | None:
    """The format that ``--format`` or ``--json`` asks for; None where neither was given.

    Raises:
        UsageError: no such format, or two of them.
    """
    if named is None:
        return "jsonl" if json else None
    if named not in FORMATS:
        raise UsageError(f"--format: {named!r} is not one of {', '.join(FORMATS)}", "--format jsonl")
    if json and named != "jsonl":
        raise UsageError(f"--json is --format jsonl, and --format {named} was given too", "leave one of them out")
    return named


class Records:
    """Writes records to stdout, one a line.

    Args:
        output: of the command.
        form: ``jsonl``, ``tsv`` or ``csv``. The latter two begin with a line of :data:`COLUMNS`; a cell of ``tsv``
            holds ``\\t``, ``\\n`` and ``\\\\`` for the characters that they stand for, one of ``csv`` is quoted.
    """

    def __init__(self, output: Output, form: str) -> None:
        self._output, self._form, self._begun = output, form, False

    def begin(self) -> None:
        """Write the line of columns, where there is one and it was not written yet: also above no record at all."""
        if self._form != "jsonl" and not self._begun:
            self._line(COLUMNS)
            self._begun = True

    def write(self, record: dict[str, Any]) -> None:
        """One answer's record, or one of an error."""
        if self._form == "jsonl":
            self._output.record(record)
            return
        self.begin()
        self._line(cells(record))

    def _line(self, values: tuple[str, ...]) -> None:
        if self._form == "tsv":
            self._output.answer("\t".join(value.translate(_TSV_ESCAPES) for value in values))
            return
        import csv
        import io

        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        self._output.answer(line.getvalue(), end="")


def cells(record: dict[str, Any]) -> tuple[str, ...]:
    """What of a record stands in a table, in the order of :data:`COLUMNS`; nothing where there is nothing."""
    error, tokens = record.get("error"), record.get("tokens")
    parts = [] if tokens is None else [tokens["video"], tokens["audio"]]
    shares = [choice["probability"] for choice in record.get("choices", ())]
    own = {
        "id": record.get("id"),
        "media": record["media"],
        "question": record["question"],
        "answer": record.get("answer"),
        "probability": max(shares) if shares else None,
        "audio": record.get("audio"),
        "kept": sum(part["kept"] for part in parts) if parts else None,
        "total": sum(part["total"] for part in parts) if parts else None,
        "notices": "; ".join(record.get("notices", ())),
        "error": None if error is None else error["message"],
    }
    return tuple("" if own[name] is None else inert(str(own[name]).replace("\r\n", "\n")) for name in COLUMNS)
