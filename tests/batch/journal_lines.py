"""Lines as a batch writes them, and its output file opened, for several tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echopix_cli.batch.journal import Journal
from echopix_cli.batch.tasks import Task

FILE = {"sha256": "ab" * 32, "size": 10, "mtime_ns": 20}


def record(task: Task, key: str | None, failed: bool = False, file: dict[str, Any] | None = None) -> dict[str, Any]:
    """As the command writes them, with less in it."""
    end = {"error": {"message": "no"}} if failed else {"answer": 'yes\u2028 "\n'}
    head = {"schema_version": 1, "id": task.id, "key": key, "file": file}
    return head | {"media": task.media, "question": task.question} | end


def line(task: Task, key: str | None, failed: bool = False, file: dict[str, Any] | None = None) -> bytes:
    return json.dumps(record(task, key, failed, file)).encode() + b"\n"


def reopened(path: Path, tasks: Sequence[Task] = (), overwrite: bool = False) -> Journal:
    journal = Journal(path, tasks, overwrite)
    journal.begin()
    return journal


OURS = line(Task("a.mp4", "q"), "key")
