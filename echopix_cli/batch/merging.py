"""Several output files of batches made one: shards, and what machines of a cluster wrote apart from each other."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from echopix_cli.batch.journal import Journal
from echopix_cli.batch.lines import Label, label_in, may_be_torn, record_in
from echopix_cli.errors import UsageError
from echopix_cli.files import name_in


@dataclass(frozen=True)
class Merged:
    """How many lines there are now, how many of them are errors, and how many that say the same again were left out."""

    records: int
    errors: int
    left_out: int


class _Line(NamedTuple):
    """A record: its bytes with their newline, what tells its task from others, and its key; None of an error. And what
    the same file with the same content has in another folder, or on another machine."""

    content: bytes
    label: Label
    key: str | None
    anywhere: tuple[str, ...] | None


def merge(parts: Sequence[Path], output: Path) -> Merged:
    """Put the records of some files, and those that the output holds already, together there: one a task and key.

    Of two answers to the same the first stays; an error goes where the task was answered, and of two the last stays.
    A relative path is another file in another folder, where lines say in which it started.

    Args:
        parts: files as batches write them; a last line that was cut off is dropped.
        output: written whole, or left as it is.

    Raises:
        UsageError: a part cannot be read, holds something else, or is being written; or so the output.
        EchopixError: the output cannot be written.
    """
    read = [_lines(part) for part in dict.fromkeys(parts) if not _same(part, output)]
    with closing(Journal(output)) as journal:
        own = _lines(output, locked=True)
        kept, left_out = _one_each(line for lines in (own, *read) for line in lines)
        journal.rewrite([line.content for line in kept])
    return Merged(len(kept), sum(line.key is None for line in kept), left_out)


def _same(part: Path, output: Path) -> bool:
    try:
        return part.samefile(output)
    except OSError:
        return False  # of a part that cannot be read, reading it says so


def _one_each(lines: Iterable[_Line]) -> tuple[list[_Line], int]:
    """Lines without those that say the same again, and how many went."""
    answers: dict[tuple[str, Label], _Line] = {}
    errors: dict[Label, _Line] = {}
    count = 0
    for line in lines:
        count += 1
        if line.key is None:
            errors[line.label] = line
        else:
            answers.setdefault((line.key, line.label), line)
    answered = {label for _, label in answers}
    known = {line.anywhere for line in answers.values()} - {None}
    failed = (line for label, line in errors.items() if label not in answered and line.anywhere not in known)
    kept = [*answers.values(), *failed]
    return kept, count - len(kept)


def _lines(path: Path, locked: bool = False) -> list[_Line]:
    """Whole records of a file.

    Args:
        path: of the file.
        locked: by this process.

    Raises:
        UsageError: it cannot be read, holds something else, or is being written.
    """
    try:
        with open(path, "rb") as file:
            if not locked:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            content = file.read()
    except BlockingIOError:
        raise UsageError(f"another process writes {path}", "wait for it") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "name output files of echopix ask") from None
    *whole, torn = content.split(b"\n")
    while whole and not whole[-1].strip():
        whole.pop()  # blank lines that an editor left at the end
    torn = torn.rstrip(b"\0")
    if record_in(torn) is not None:
        whole.append(torn)
    elif not may_be_torn(torn):
        raise _foreign(path, len(whole) + 1)
    found = []
    for number, line in enumerate(whole, 1):
        record = record_in(line)
        if record is None or "settings" in record:
            raise _foreign(path, number)
        key, file = None if "error" in record else record["key"], record["file"]
        own = (name_in(record), record["question"], repr(record["id"]))
        anywhere = None if file is None else (*own, file["sha256"])
        found.append(_Line(line + b"\n", label_in(record), key, anywhere))
    return found


def _foreign(path: Path, number: int) -> UsageError:
    return UsageError(f"{path}, line {number}, is no record of a batch", "name output files of echopix ask")
