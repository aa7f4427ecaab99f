"""Ray's processes of a test's own cluster: which they are, and the ends of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def children(pid: int) -> Iterator[int]:
    """Processes that a process has begun, and theirs."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in own:
            yield child
            yield from children(child)


def title(pid: int) -> str:
    """A process's command line, which Ray sets; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def raylet(node: Any) -> int:
    """The process of a node that all of its others are below."""
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def actors(kind: str, *above: int) -> list[int]:
    """Actors of a class below some processes."""
    return [pid for parent in above for pid in children(parent) if title(pid).startswith(f"ray::{kind}")]


def kill(pid: int) -> None:
    """As the kernel does when memory runs out."""
    os.kill(pid, signal.SIGKILL)
