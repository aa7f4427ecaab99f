"""The output file of a batch: a line per task, each whole or absent, in a file that one process writes.

A batch may be killed at any instant and started again. What the file then holds is the only memory there is.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echopix_cli.batch.tasks import Task
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.files import check_target, sync

_BEGINNING = b'{"schema_version": '  # of every line
Label = tuple[str, str, str | None]  # media, question and id of a task


@dataclass(frozen=True)
class FileFacts:
    """Which bytes a media file held: SHA-256, and the size and time (ns) that say whether it still may."""

    sha256: str
    size: int
    mtime_ns: int


def label_of(task: Task) -> Label:
    """What tells a task from the others in a list."""
    return task.media, task.question, task.id


class Journal:
    """An open output file.

    Opening it locks it, drops a torn last line, and forgets the failures among ``tasks``, which are to be tried
    again; so at any time the file holds at most one line per task.

    Args:
        path: of the file.
        tasks: of this run.
        overwrite: begin anew; what the file held is gone once the lock is ours.

    Raises:
        UsageError: another process writes it, or it holds something else than such lines.
        EchopixError: it cannot be written.
    """

    def __init__(self, path: Path, tasks: Iterable[Task] = (), overwrite: bool = False) -> None:
        self.path = path
        check_target(path)
        self._lock = threading.Lock()
        self._labels = {label_of(task) for task in tasks}
        self._done: dict[str, set[Label]] = defaultdict(set)
        self._facts: dict[tuple[str, int, int], str] = {}
        self._file = self._open_locked()
        try:
            self._length = 0 if overwrite else self._recover()
            os.ftruncate(self._file, self._length)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def facts_of(self, media: str, size: int, mtime_ns: int) -> FileFacts | None:
        """What is known of a file that looks as it did when it was last read."""
        sha256 = self._facts.get((media, size, mtime_ns))
        return None if sha256 is None else FileFacts(sha256, size, mtime_ns)

    def claim(self, key: str, task: Task) -> bool:
        """Whether a task was answered before, under this key. What a file was called then does not matter, as long
        as no other task of this run goes by that name: each line stands for one task."""
        with self._lock:
            known, own = self._done.get(key, set()), label_of(task)
            if own not in known:
                renamed = sorted(known - self._labels, key=str)
                if not renamed:
                    return False
                own = renamed[0]
            known.discard(own)
            return True

    def append(self, record: dict[str, Any]) -> None:
        """Write a line and wait until it is on the disk.

        Raises:
            EchopixError: the disk refuses; the file then ends with the line before.
        """
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._length + written)
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._length)
            raise self._refused(error) from error
        self._length += len(line)

    def _open_locked(self) -> int:
        """A descriptor of the file that has this name now, and its lock."""
        while True:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise self._refused(error) from error
            try:
                self._take(file)
                # Whoever held the lock may have put another file in its place.
                if os.path.exists(self.path) and os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _take(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process writes {self.path}", "wait for it, or give this one an --output of its own"
            ) from None
        except OSError as error:
            raise self._refused(error) from error

    def _recover(self) -> int:
        """Read what is there; the length in bytes of what stays."""
        with open(self._file, "rb", closefd=False) as reader:
            content = reader.read()
        whole = content[: content.rfind(b"\n") + 1]
        kept, forgotten = [], False
        torn = content[len(whole) :]
        if torn[: len(_BEGINNING)] != _BEGINNING[: len(torn)]:  # some other file, named by mistake
            raise self._foreign(whole.count(b"\n") + 1)
        for number, line in enumerate(whole.splitlines(keepends=True), 1):
            record = self._parse(line, number)
            if "error" in record and _label(record) in self._labels:
                forgotten = True
                continue
            kept.append(line)
            self._remember(record)
        if forgotten:
            self._replace(b"".join(kept))
        return sum(map(len, kept))

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
            if isinstance(record["media"], str) and isinstance(record["question"], str) and "key" in record:
                return dict(record)
        except (ValueError, TypeError, KeyError):
            pass  # the same is said of all that is not ours
        raise self._foreign(number)

    def _foreign(self, number: int) -> UsageError:
        return UsageError(
            f"{self.path}, line {number}, is no record of a batch", "give another --output, or --overwrite the file"
        )

    def _remember(self, record: dict[str, Any]) -> None:
        if "error" not in record and isinstance(record["key"], str):
            self._done[record["key"]].add(_label(record))
        file = record.get("file")
        if isinstance(file, dict) and {"sha256", "size", "mtime_ns"} <= file.keys():
            self._facts[record["media"], file["size"], file["mtime_ns"]] = str(file["sha256"])

    def _replace(self, content: bytes) -> None:
        """Put a shorter file in the place of this one; it carries the lock before it carries the name."""
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._refused(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(file, "wb", closefd=False) as writer:
                writer.write(content)
            os.fsync(file)
            os.fchmod(file, os.fstat(self._file).st_mode & 0o7777)
            os.replace(partial, self.path)
            sync(self.path.parent)
        except OSError as error:
            os.close(file)
            partial.unlink(missing_ok=True)
            raise self._refused(error) from error
        os.close(self._file)
        self._file = file

    def _refused(self, error: OSError) -> EchopixError:
        return EchopixError(
            f"cannot write {self.path}: {error.strerror or error}", "make room or name another --output, and run again"
        )


def _label(record: dict[str, Any]) -> Label:
    return record["media"], record["question"], record.get("id")
