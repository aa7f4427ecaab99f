"""A file is read with a few threads, however many pictures are taken from it and however many processors there are."""

from __future__ import annotations

import os
from pathlib import Path

from makers import greys, write_clip

from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.media.sampling import Pixels


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_threads_do_not_grow_with_the_pictures_taken(tmp_path: Path) -> None:
    """A conversion of a picture keeps its threads until it is collected: it is given none."""
    path = write_clip(tmp_path / "film.mp4", greys(100), codec="libx264", pix_fmt="yuv420p")
    seen: list[int] = []

    def arrived(frames: Pixels, ready: int) -> None:
        seen.append(threads())

    clip = load_clip(str(path), DecodePlan(fps=10.0), arrived=arrived)
    assert clip.frames is not None and len(clip.frames) == 100
    assert max(seen) <= seen[0] + 8
