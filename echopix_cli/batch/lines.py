"""What a line of a batch's output file says: which task it is about, and whether it is a line of ours at all."""

from __future__ import annotations

import json
import os
from types import NoneType
from typing import Any

from echopix_cli.batch.tasks import Task
from echopix_cli.files import folder_of, name_in

_BEGINNING = b'{"schema_version": '  # of every line
Label = tuple[str, str, str | int | None]  # media, by its whole path where that is known, question and id of a task


def labels_of(task: Task) -> tuple[Label, ...]:
    """What tells a task from others, by its file's whole path; and as lines have it that do not say where a relative
    path started."""
    return tuple((path, task.question, task.id) for path in paths_of(task.media))


def paths_of(media: str) -> tuple[str, ...]:
    """The whole path of a media file, and what lines have that do not say where a relative one started."""
    folder = folder_of(media)
    alone = os.path.normpath(media)
    return (os.path.normpath(os.path.join(folder["folder"], media)), alone) if folder else (alone,)


def record_in(line: bytes) -> dict[str, Any] | None:
    """A line as a record; None where it is none of ours."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not {"id", "key", "file", "media", "question"} <= record.keys():
        return None
    try:
        texts = [record["media"], name_in(record), record["question"], record.get("folder", "")]
    except ValueError:
        return None
    if "error" not in record:
        texts.append(record["key"])
    numbers = []
    if (file := record["file"]) is not None:
        if not isinstance(file, dict) or not {"sha256", "size", "mtime_ns"} <= file.keys():
            return None
        texts.append(file["sha256"])
        numbers = [file["size"], file["mtime_ns"]]
    ours = all(isinstance(text, str) for text in texts) and all(isinstance(number, int) for number in numbers)
    return record if ours and isinstance(record["id"], (str, int, NoneType)) else None


def may_be_torn(end: bytes) -> bool:
    """Whether a last line that is no record may be the beginning of one of ours, and not of some other file that was
    named by mistake."""
    if end[: len(_BEGINNING)] != _BEGINNING[: len(end)]:
        return False
    try:
        json.loads(end)
    except ValueError:
        return True
    except RecursionError:
        pass
    return False


def renamed(before: Label, now: Label) -> bool:
    """Whether the task of a line may be one of today whose file was called otherwise: nothing goes by the old name any
    more, or the very same file does. Of a relative name that may have started elsewhere, the former is not known."""
    if before[2] != now[2]:
        return False
    try:
        return os.path.samefile(before[0], now[0])
    except (OSError, ValueError):
        return os.path.isabs(before[0]) and not os.path.lexists(before[0])


def label_in(record: dict[str, Any]) -> Label:
    """What tells the task of a record from others."""
    path = os.path.normpath(os.path.join(record.get("folder", ""), name_in(record)))
    return path, record["question"], record.get("id")
