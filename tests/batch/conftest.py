"""Batches by the real command: inside the test process where possible, in one of their own where signals matter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from batch_files import free_box

Ask = Callable[..., Any]


@pytest.fixture
def ask(run: Ask) -> Ask:
    """``ask(folder, "What?")`` with a random model and short answers."""
    return partial(run, "ask")


Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn(random_checkpoint: Path) -> Spawn:
    """``spawn(folder, "What?")``, in a process group of its own, as a terminal would."""
    environment = {**os.environ, "ECHOPIX_MODEL": str(random_checkpoint), "ECHOPIX_MAX_NEW_TOKENS": "4"}

    def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "echopix_cli", "ask", *map(str, arguments)],
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
            **options,
        )

    return start


@pytest.fixture
def sounds(clips: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of six small files, each with a content of its own: padding after the media is not media."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.m4a").write_bytes(clips["dark"].read_bytes() + free_box(number))
    return folder


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often files are hashed, decoded and encoded, and models loaded."""
    from echopix_cli.decoding.worker import Worker
    from echopix_cli.engine import Engine

    counts = dict.fromkeys(("fingerprint", "decode", "encode", "load"), 0)

    def count(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    count(Worker, "fingerprint")
    count(Worker, "decode")
    count(Engine, "encode")
    count(Engine, "load")
    return counts
