"""Folders that whoever runs a command may not enter: as places of files to write, and as where the command is run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from permissions import bound


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder with another one in it."""
    folder = tmp_path / "locked"
    (folder / "inner").mkdir(parents=True)
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize("option", ["-o", "--report", "--vtt"])
@pytest.mark.parametrize(("below", "why"), [(".", "cannot be written"), ("inner", "cannot be entered")])
def test_a_file_to_write_there(locked: Path, clips: dict[str, Path], option: str, below: str, why: str) -> None:
    ran = bound("ask", clips["dark"], "What?", option, locked / below / "file")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.splitlines()[0] == f"error: the folder {locked / below} {why}"


def test_pages_of_many_there(locked: Path, clips: dict[str, Path], tmp_path: Path) -> None:
    ran = bound("ask", clips["dark"], "What?", "-o", tmp_path / "out.jsonl", "--report", locked / "inner")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"error: the folder {locked} does not exist or cannot be written\n")


@pytest.mark.parametrize("mode", [0o000, 0o400])
@pytest.mark.parametrize("command", ["info", "clear"])
def test_a_cache_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, mode: int) -> None:
    """Nothing was found is not said where nothing could be looked at."""
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path))
    features = tmp_path / "features"
    features.mkdir()
    kept = features / f"{1:064x}.safetensors"
    kept.touch()
    features.chmod(mode)
    ran = bound("cache", command)
    features.chmod(0o700)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.splitlines()[0] == f"error: cannot look into {features}: Permission denied"
    assert kept.exists()


def test_a_command_that_is_run_there(locked: Path, clips: dict[str, Path]) -> None:
    """Whole paths are read as anywhere; one that starts there is said to."""
    here = f"cd {shlex.quote(str(locked))} && chmod 0 ."
    locked.chmod(0o700)
    ran = bound("ask", "demo", clips["dark"], "x.mp4", "What?", "--json", "--max-new-tokens", 2, before=here)
    demo, whole, relative = map(json.loads, ran.stdout.splitlines())
    assert ran.returncode == 1, ran.stderr
    assert "answer" in demo and "answer" in whole
    assert relative["error"]["message"] == (
        "x.mp4: the folder that it starts from cannot be entered: Permission denied"
    )
