"""Fragmented MP4s: a damaged box costs what it holds, and is said; whole files give no alarm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from makers import interleaved, seconds_heard, write_coded

from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.media.boxes import Boxes, filled_holes, read_boxes
from echopix_cli.media.source import open_regular

PLAN = DecodePlan(min_pixels=28 * 28, max_pixels=100 * 28 * 28, fps=1.0)
SKIPPED = r"the file is damaged [0-9]+% of the way through it; what lies there was skipped"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds in fragments of one second."""
    source = write_coded(tmp_path_factory.mktemp("boxes") / "source.mp4", 0, 8)
    flags = "frag_keyframe+empty_moov+default_base_moof"
    return interleaved(source, source.with_name("whole.mp4"), movflags=flags)


def places(data: bytes, name: bytes) -> list[int]:
    return [found.start() - 4 for found in re.finditer(name, data)]


def damaged(path: Path, data: bytes, first: int, last: int) -> Path:
    path.write_bytes(data[:first] + bytes(last - first) + data[last:])
    return path


def test_a_whole_one_gives_no_alarm(whole: Path) -> None:
    clip = load_clip(whole, PLAN)
    assert clip.notices == () and clip.waveform is not None and seconds_heard(clip.waveform) == [*range(8)]
    with open_regular(whole) as file:
        assert read_boxes(file) == Boxes(whole.stat().st_size, whole.stat().st_size, fragmented=True)


@pytest.mark.parametrize("last", [4, 6])
def test_reading_goes_on_at_the_next_fragment(whole: Path, tmp_path: Path, last: int) -> None:
    data = whole.read_bytes()
    heads = places(data, b"moof")
    clip = load_clip(damaged(tmp_path / "a.mp4", data, heads[3], heads[last]), PLAN)
    assert clip.waveform is not None and clip.frames is not None
    heard = seconds_heard(clip.waveform)
    assert heard[:3] == [0, 1, 2] and heard[last:8] == [*range(last, 8)] and set(heard[3:last]) == {None}
    assert len(clip.notices) == 1 and re.fullmatch(SKIPPED, clip.notices[0])


@pytest.mark.parametrize("how", ["zeros", "cut in the head", "cut behind it", "broken inside"])
def test_what_is_missing_at_the_end_is_said(whole: Path, tmp_path: Path, how: str) -> None:
    data, path = whole.read_bytes(), tmp_path / "a.mp4"
    head = places(data, b"moof")[5]
    if how == "zeros":
        damaged(path, data, head, len(data))
    elif how == "broken inside":
        damaged(path, data, head + 40, len(data))
    else:
        path.write_bytes(data[: head + (100 if how == "cut in the head" else 1500)])
    clip = load_clip(path, PLAN)
    assert clip.waveform is not None and seconds_heard(clip.waveform)[:5] == [*range(5)]
    assert re.fullmatch(r"read up to 0:0[56][0-9.]*; what follows is missing or damaged", clip.notices[-1])
    early = load_clip(path, DecodePlan(start=1, end=3, min_pixels=28 * 28, max_pixels=100 * 28 * 28))
    assert early.notices == (), "nothing of it is missing"


def test_a_hole_looks_like_a_free_box_wherever_reading_begins() -> None:
    hole: Any = ((10, 100),)
    whole = filled_holes(bytes(120), 0, hole)
    assert whole == bytes(10) + b"\0\0\0\1free" + (90).to_bytes(8, "big") + bytes(94)
    for first in range(0, 40, 3):
        for size in (1, 5, 16, 60):
            assert filled_holes(bytes(size), first, hole) == whole[first : first + size]
