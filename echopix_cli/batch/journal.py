"""The output file of a batch: a line per task, each whole or absent, in a file that one process writes.

A batch may be killed at any instant and started again. What the file then holds is the only memory there is.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from echopix_cli.batch.lines import Label, label_in, labels_of, may_be_torn, paths_of, record_in, renamed
from echopix_cli.batch.tasks import Task
from echopix_cli.errors import EchopixError, UsageError
from echopix_cli.files import check_target, hidden_name, sync


@dataclass(frozen=True)
class FileFacts:
    """Which bytes a media file held: SHA-256, and the size and time (ns) that say whether it still may."""

    sha256: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Spelling:
    """What the lines are records of and the option that names the file, as errors put it; and whether a line holds
    answers by setting (``settings``), as those of an evaluation do and those of a batch do not."""

    what: str = "a batch"
    option: str = "--output"
    by_setting: bool = False


class Journal:
    """An open output file.

    Opening it locks and reads it. :meth:`begin` then changes it, so that whatever fails in between costs nothing that
    it held. A lock holds off other batches only, so before each line and at the end the file is looked at again: under
    its path must lie the file that is open here, as long as it was, with its last line at its end.

    Args:
        path: of the file; of a link, what it leads to is written.
        tasks: of this run.
        overwrite: begin anew, if the file holds such lines and nothing else.
        spelling: of errors.
        keep: hold the whole records of what was answered, too: ``kept``, by their keys.

    Raises:
        UsageError: another process writes it, it is no regular file, or it holds something else than such lines.
        EchopixError: it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        tasks: Iterable[Task] = (),
        overwrite: bool = False,
        *,
        spelling: Spelling = Spelling(),
        keep: bool = False,
    ) -> None:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise UsageError(f"{path} is a pipe or device", f"name a file with {spelling.option}")
        self.path = path
        self.kept: dict[str, dict[str, Any]] = {}
        self.other_errors = 0  # lines of failures of other tasks, which stay
        self._spelling, self._keeps = spelling, keep
        self._target = Path(os.path.realpath(path)) if os.path.islink(path) else path
        check_target(self._target)
        self._lock = threading.Lock()
        self._tasks = tuple(tasks)
        self._labels = {label for task in self._tasks for label in labels_of(task)}
        self._done: dict[str, list[Label]] = defaultdict(list)
        self._facts: dict[tuple[str, int, int], str] = {}
        self._length = 0  # bytes that stay
        self._last = b""  # the last line of those
        self._shorter: bytes | None = None  # what stays, where lines in the middle go
        self._unended = False  # the last line that stays has no newline yet
        self._made = self._begun = False
        self._file = self._open_locked()
        self._found = os.fstat(self._file).st_size  # bytes before begin() changes anything
        try:
            self._recover()
            if overwrite:
                self._done.clear()
                self._facts.clear()
                self.kept.clear()
                self.other_errors = 0
                self._length, self._last, self._shorter, self._unended = 0, b"", None, False
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Drop what is to go: a torn last line, and the failures of this run's tasks, which are to be tried again;
        or, to overwrite, everything. End the last line, where only its newline is missing.

        Raises:
            EchopixError: the disk refuses, or the file is not the one that was opened; it is as it was.
        """
        self._require(self._found)
        self._begun = True
        if self._shorter is not None:
            self._replace(self._shorter)
            self._shorter, self._unended = None, False
        try:
            os.ftruncate(self._file, self._length - self._unended)
            if self._unended:
                os.write(self._file, b"\n")
                self._unended = False
        except OSError as error:
            raise self._refused(error) from error

    def rewrite(self, lines: Sequence[bytes]) -> None:
        """Put these lines in the place of all that it holds, at once or not at all. It stays locked.

        Raises:
            EchopixError: the disk refuses, or the file is not the one that was opened; it is as it was.
        """
        self._require(self._found)
        self._begun = True
        self._replace(b"".join(lines))
        self._length, self._last = sum(map(len, lines)), lines[-1] if lines else b""

    def close(self) -> None:
        """Give the file back. One that was made for a run that never began goes."""
        if self._made and not self._begun:
            with suppress(EchopixError, OSError):  # another one lies there, or it cannot go
                self._require(0)
                self._target.unlink()
        os.close(self._file)

    def facts_of(self, media: str, size: int, mtime_ns: int) -> FileFacts | None:
        """What is known of a file that looks as it did when it was last read."""
        found = (self._facts.get((path, size, mtime_ns)) for path in paths_of(media))
        sha256 = next(filter(None, found), None)
        return None if sha256 is None else FileFacts(sha256, size, mtime_ns)

    def claim(self, key: str, task: Task) -> bool:
        """Whether a task was answered before, under this key: by its own name, or by another one that the file had
        then and has no longer. A copy of what was answered is another task; each line stands for one."""
        with self._lock:
            known, own = self._done.get(key, []), labels_of(task)
            found = [label for label in own if label in known] or sorted(
                (each for each in known if each not in self._labels and renamed(each, own[0])), key=str
            )
            if found:
                known.remove(found[0])
            return bool(found)

    def append(self, record: dict[str, Any]) -> None:
        """Write a line and wait until it is on the disk.

        Raises:
            EchopixError: the disk refuses, and the file then ends with the line before; or somebody else changed it.
        """
        self.confirm()
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        try:
            written = 0
            while written < len(line):  # at the end, wherever that is by now: never behind a hole
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            if os.fstat(self._file).st_size > self._length:
                os.ftruncate(self._file, self._length)
            raise self._refused(error) from error
        self._length, self._last = self._length + len(line), line
        self.confirm()

    def confirm(self) -> None:
        """See that what was written is there, under the path.

        Raises:
            EchopixError: somebody else removed, replaced or changed the file.
        """
        self._require(self._length)
        if os.pread(self._file, len(self._last), self._length - len(self._last)) != self._last:
            raise self._lost("its last line is not the one that was written")

    def _require(self, length: int) -> None:
        """As :meth:`confirm`, of the file's name and length only."""
        own = os.fstat(self._file)
        try:
            named = os.stat(self.path)  # where a link leads now
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from None
        if not os.path.samestat(own, named):
            raise self._lost("another file lies there")
        if own.st_size != length:
            raise self._lost(f"it has {own.st_size:,} bytes in place of {length:,}")

    def _lost(self, what: str) -> EchopixError:
        return EchopixError(
            f"{self.path} was changed by somebody else while it was written: {what}",
            "see to it that nothing else writes it, and run again",
        )

    def _open_locked(self) -> int:
        """A descriptor of the file that has this name now, and its lock."""
        while True:
            try:
                made = not os.path.lexists(self._target)
                exclusive = os.O_CREAT | os.O_EXCL if made else 0
                file = os.open(self._target, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | exclusive, 0o666)
            except (FileExistsError, FileNotFoundError) as error:
                if os.path.lexists(self._target) == made:  # somebody was faster
                    continue
                raise self._refused(error) from error
            except OSError as error:
                raise self._refused(error) from error
            try:
                self._take(file)
                # Whoever held the lock may have put another file in its place.
                if os.path.exists(self._target) and os.path.samestat(os.fstat(file), os.stat(self._target)):
                    self._made = made
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
                f"another process writes {self.path}",
                f"wait for it, or give this one an {self._spelling.option} of its own",
            ) from None
        except OSError as error:
            raise self._refused(error) from error

    def _recover(self) -> None:
        """Read what is there, and settle what of it stays."""
        with open(self._file, "rb", closefd=False) as reader:
            if (first := reader.read(1)) not in (b"", b"{"):
                raise self._foreign(1)  # before all of what may be a film is read
            content = first + reader.read()
        whole = content[: content.rfind(b"\n") + 1]
        torn = content[len(whole) :].rstrip(b"\0")  # what some file systems leave of a line when the power fails
        lines, kept = whole.splitlines(keepends=True), []
        while len(lines) > 1 and not lines[-1].strip():
            lines.pop()  # a blank line that an editor left at the end
        scattered = False  # something in the middle goes
        if self._record(torn) is not None:  # a power cut or an editor took its newline and nothing else
            scattered = sum(map(len, lines)) < len(whole)
            self._unended = True
            lines.append(torn + b"\n")
            torn = b""
        for number, line in enumerate(lines, 1):
            record = self._record(line)
            if record is None:
                raise self._foreign(number)
            if "error" not in record or not self._again(record):
                kept.append(line)
                self._remember(record)
                self.other_errors += "error" in record
        if not may_be_torn(torn):
            raise self._foreign(len(lines) + 1)
        self._length, self._last = sum(map(len, kept)), kept[-1] if kept else b""
        if scattered or len(kept) < len(lines):
            self._shorter = b"".join(kept)

    def _again(self, record: dict[str, Any]) -> bool:
        """Whether a failure is one of this run's tasks: by its own name, or by another one that the file had then and
        has no longer, as of :meth:`claim`; which file that is, size and time say."""
        label, file = label_in(record), record["file"]
        if label in self._labels or file is None:
            return label in self._labels
        alike = self._looks.get((file["size"], file["mtime_ns"]), ())
        return any(own[1] == label[1] and renamed(label, own) for own in alike)

    @cached_property
    def _looks(self) -> dict[tuple[int, int], list[Label]]:
        """This run's tasks by the size and time that their files have now."""
        found: dict[tuple[int, int], list[Label]] = defaultdict(list)
        for task in self._tasks:
            with suppress(OSError, ValueError):
                status = os.stat(task.media)
                found[status.st_size, status.st_mtime_ns].append(labels_of(task)[0])
        return found

    def _record(self, line: bytes) -> dict[str, Any] | None:
        record = record_in(line)
        return record if record is not None and ("settings" in record) == self._spelling.by_setting else None

    def _foreign(self, number: int) -> UsageError:
        return UsageError(
            f"{self.path}, line {number}, is no record of {self._spelling.what}, and only such are written over or "
            "added to",
            f"give another {self._spelling.option}",
        )

    def _remember(self, record: dict[str, Any]) -> None:
        if "error" not in record:
            self._done[record["key"]].append(label_in(record))
            if self._keeps:
                self.kept[record["key"]] = record
        if (file := record["file"]) is not None:
            self._facts[label_in(record)[0], file["size"], file["mtime_ns"]] = file["sha256"]

    def _replace(self, content: bytes) -> None:
        """Put a shorter file in the place of this one; it carries the lock before it carries the name."""
        # One name, and whoever writes it holds the lock: what a killed process left goes. Whatever else may lie there,
        # a link above all, is not written to.
        partial = self._target.with_name(hidden_name(self._target.name))
        try:
            partial.unlink(missing_ok=True)
            file = os.open(partial, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._refused(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(file, "wb", closefd=False) as writer:
                writer.write(content)
            os.fsync(file)
            os.fchmod(file, os.fstat(self._file).st_mode & 0o7777)
            os.replace(partial, self._target)
            sync(self._target.parent)
        except OSError as error:
            os.close(file)
            partial.unlink(missing_ok=True)
            raise self._refused(error) from error
        os.close(self._file)
        self._file = file

    def _refused(self, error: OSError) -> EchopixError:
        return EchopixError(
            f"cannot write {self.path}: {error.strerror or error}",
            f"make room or name another {self._spelling.option}, and run again",
        )
