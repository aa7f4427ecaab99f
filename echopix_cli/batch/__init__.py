"""Batch room: many media files and many questions → one JSON line each, resumable, whatever the files hold."""

from __future__ import annotations

from echopix_cli.batch.journal import Journal
from echopix_cli.batch.run import Batch, Settings, Summary
from echopix_cli.batch.tasks import Task, find_media, read_questions, read_tasks, shard

__all__ = ["Batch", "Journal", "Settings", "Summary", "Task", "find_media", "read_questions", "read_tasks", "shard"]
