"""Several output files of batches made one: shards, and what machines of a cluster wrote apart from each other."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from echopix_cli.batch.journal import Journal, Label, label_in, may_be_torn, record_in
from echopix_cli.errors import UsageError


@dataclass(frozen=True)
class Merged:
    """How many lines there are now, how many of them are errors, and how many that say the same again were left out."""

    records: int
    errors: int
    left_out: int


def merge(parts: Sequence[Path], output: Path) -> Merged:
    """Put the records of some files, and those that the output holds already, together there: one a task and key.

    Of two answers to the same the first stays; an error goes where the task was answered, and of two the last stays.

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
        journal.rewrite([line for line, _ in kept])
    return Merged(len(kept), sum(failed for _, failed in kept), left_out)


def _same(part: Path, output: Path) -> bool:
    try:
        return part.samefile(output)
    except OSError:
        return False  # of a part that cannot be read, reading it says so


def _one_each(lines: Iterable[bytes]) -> tuple[list[tuple[bytes, bool]], int]:
    """Lines without those that say the same again, and whether each is an error; and how many went."""
    answers: dict[tuple[str, Label], bytes] = {}
    errors: dict[Label, bytes] = {}
    count = 0
    for line in lines:
        record = record_in(line)
        assert record is not None
        count += 1
        if "error" in record:
            errors[label_in(record)] = line
        else:
            answers.setdefault((record["key"], label_in(record)), line)
    answered = {label for _, label in answers}
    kept = [(line, False) for line in answers.values()]
    kept += [(line, True) for label, line in errors.items() if label not in answered]
    return kept, count - len(kept)


def _lines(path: Path, locked: bool = False) -> list[bytes]:
    """Whole records of a file, each with its newline.

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
    for number, line in enumerate(whole, 1):
        record = record_in(line)
        if record is None or "settings" in record:
            raise _foreign(path, number)
    return [line + b"\n" for line in whole]


def _foreign(path: Path, number: int) -> UsageError:
    return UsageError(f"{path}, line {number}, is no record of a batch", "name output files of echopix ask")
