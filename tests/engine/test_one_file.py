"""A clip that is read for one question: of one file, and only as long as its drive answers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from echopix_cli.decoding import worker
from echopix_cli.engine import Encoded, Engine
from echopix_cli.engine.opening import open_media
from echopix_cli.errors import FileLost
from echopix_cli.media import DecodePlan
from echopix_cli.shelf import Shelf

PLAN = DecodePlan(max_frames=4)


@pytest.fixture
def engine(random_checkpoint: Path, tmp_path: Path) -> Engine:
    return Engine.load(str(random_checkpoint), "cpu", shelf=Shelf(tmp_path / "kept", 2**30))


@pytest.mark.parametrize("change", ["replaced", "rewritten", "renamed", "permissions"])
def test_a_clip_is_of_one_file(
    engine: Engine, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The file changes after its sound was heard; what changes no content is no change."""
    path, other = tmp_path / "clip.mp4", tmp_path / "other.mp4"
    path.write_bytes(clips["both"].read_bytes())
    other.write_bytes(clips["silent"].read_bytes())
    read = engine.read

    def changing(*arguments: Any) -> Encoded:
        encoded = read(*arguments)
        if change == "replaced":
            other.replace(path)
        elif change == "rewritten":
            path.write_bytes(other.read_bytes())
        elif change == "renamed":
            path.rename(other)
            other.rename(path)
        else:
            path.chmod(0o600)
        return encoded

    monkeypatch.setattr(engine, "read", changing)
    if change in ("replaced", "rewritten"):
        with pytest.raises(FileLost, match=r"clip\.mp4 changed while it was read"):
            open_media(engine, str(path), engine.plan(PLAN), ["What?"])
    else:
        assert open_media(engine, str(path), engine.plan(PLAN), ["What?"])[0].inputs.audio_rows


def test_a_drive_that_does_not_answer_is_given_up_before_anything_is_decoded(
    engine: Engine, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tells files apart is read by a process that can be given up, too."""
    path = str(clips["both"])
    worker.identity(path)
    helper = worker._idle[-1]
    assert helper._pid is not None
    monkeypatch.setattr(helper, "patience", 1.0)
    os.kill(helper._pid, signal.SIGSTOP)
    with pytest.raises(FileLost, match="reading it has come no further for 1 s"):
        engine.read(path, engine.plan(PLAN))
