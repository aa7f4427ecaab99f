"""Running the command line inside the test process, with its real streams."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``command("scene", "out.mp4")``, for what needs no model."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> Ran:
        from echopix_cli.cli.app import main

        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["echopix", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return Ran(int(left.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def run(command: Run, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("ask", clip, "What?")`` with a random model and short answers."""
    monkeypatch.setenv("ECHOPIX_MODEL", str(random_checkpoint))
    monkeypatch.setenv("ECHOPIX_MAX_NEW_TOKENS", "4")
    return command
