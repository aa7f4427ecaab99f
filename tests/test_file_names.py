"""Names that files get: whole, and none of somebody else's."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from echopix_cli.files import rename_new


def test_a_name_that_cannot_be_taken_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without hard links the name is taken first, and then the file gets it."""
    part = tmp_path / "part"
    part.write_text("whole")

    def refuse(*names: Any, **more: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(OSError, match="Input/output"):
        rename_new(part, tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
