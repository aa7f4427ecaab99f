"""Which clips are held in memory for the next question."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from echopix_cli.media import DecodePlan
from echopix_cli.serving.answering import Held, looked

PLAN = DecodePlan()


def test_clips_are_held_as_far_as_they_are_small_and_the_last_one_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("echopix_cli.serving.answering._MOST_HELD", 100)
    held, sizes = Held(), {"a": 60, "b": 40, "c": 60, "large": 500, "film": 1}
    paths = {name: str(tmp_path / name) for name in sizes}

    def asked(name: str) -> bool:
        """Whether it was held; it is, if it can be, from now on."""
        if held.find(paths[name], PLAN) is not None:
            return True
        rows = torch.zeros(sizes[name], dtype=torch.uint8)
        encoded: Any = SimpleNamespace(survivors="some" if name == "film" else None, video=rows, audio=None)
        held.keep(paths[name], PLAN, looked(paths[name]), encoded)
        return False

    for name, path in paths.items():
        Path(path).write_text(name)
    assert [asked(name) for name in ("a", "b", "a", "b")] == [False, False, True, True]
    assert [asked(name) for name in ("a", "c")] == [True, False], "b was asked about longest ago"
    assert [asked(name) for name in ("c", "b", "a", "c")] == [True, False, False, False]
    assert [asked(name) for name in ("large", "large")] == [False, True]
    assert [asked(name) for name in ("film", "large", "film")] == [False, False, False], "before the film was read"


def test_a_clip_that_is_another_one_now_is_not_found(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    held, encoded = Held(), SimpleNamespace(survivors=None, video=None, audio=None)
    for other in (lambda: PLAN, lambda: replace(PLAN, start=1.0), lambda: file.write_text("other") and PLAN):
        held.keep(str(file), PLAN, looked(str(file)), encoded)  # type: ignore[arg-type]
        plan: Any = other()
        assert (held.find(str(file), plan) is encoded) == (plan is PLAN and file.read_text() == "a")
    held.keep(str(file), PLAN, looked(str(file)), encoded)  # type: ignore[arg-type]
    file.unlink()
    assert held.find(str(file), PLAN) is None
