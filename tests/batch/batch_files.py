"""Files that batches read and write, for several tests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def records_of(path: Path) -> list[dict[str, Any]]:
    """Records of an output file; every line must be one."""
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def free_box(number: int) -> bytes:
    """An MP4 box that says nothing, so that copies of a file differ."""
    return b"\0\0\0\x10free" + number.to_bytes(8, "big")


def asked(records: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each record's file name and question."""
    return [(os.path.basename(record["media"]), record["question"]) for record in records]
