"""A glance: keyframes, decoded alone, in place of the sampled frames that have one nearby."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import coded, codes, write_clip

from echopix_cli.media import DecodePlan, load_clip
from echopix_cli.media.cost import Meter
from echopix_cli.media.sampling import at_keyframes

PLAN = DecodePlan(min_pixels=28 * 28, max_pixels=100 * 28 * 28)


def write_h264(path: Path, count: int, x264: str, **more: Any) -> Path:
    """Coded pictures, 25 a second, with keyframes where they are asked for only."""
    options = {"preset": "ultrafast", "x264-params": f"scenecut=0:{x264}"}
    pictures = [coded(number) for number in range(count)]
    return write_clip(path, pictures, fps=25, codec="libx264", pix_fmt="yuv420p", options=options, **more)


@pytest.mark.parametrize(
    ("name", "x264"),
    [
        ("a.mp4", "keyint=25:min-keyint=25:bframes=3:open-gop=0"),
        ("a.mkv", "keyint=25:min-keyint=25:bframes=0"),
        ("open.mp4", "keyint=25:min-keyint=25:bframes=3:b-adapt=0:open-gop=1"),
        ("a.ts", "keyint=25:min-keyint=25:bframes=3:open-gop=0"),
        ("open.ts", "keyint=25:min-keyint=25:bframes=3:b-adapt=0:open-gop=1"),
    ],
)
def test_only_the_frames_that_are_taken_are_decoded(tmp_path: Path, decoded: list[Meter], name: str, x264: str) -> None:
    path = write_h264(tmp_path / name, 300, x264)
    for span, count in (({}, 6), ({"start": 3.3, "end": 11.9}, 4)):
        decoded.clear()
        plan = replace(PLAN, fps=0.5, min_frames=2, **span)
        usual, glance = load_clip(path, plan), load_clip(path, replace(plan, keyframes=True))
        assert usual.frame_times is not None and glance.frame_times is not None and glance.frames is not None
        assert len(glance.frame_times) == len(usual.frame_times) == count
        assert decoded[1].frames == count, "each one alone"
        assert codes(glance.frames) == [round(time * 25) for time in glance.frame_times], "and at its own time"
        spacing = (usual.frame_times[-1] - usual.frame_times[0]) / (count - 1)
        assert np.abs(glance.frame_times - usual.frame_times).max() <= spacing / 2
        if "open" not in x264 or "open-gop=0" in x264:
            assert all(number % 25 == 0 for number in codes(glance.frames))
        assert glance.notices == ()


def test_what_has_no_keyframe_nearby_is_decoded_as_ever(tmp_path: Path, decoded: list[Meter]) -> None:
    path = write_h264(tmp_path / "rare.mp4", 500, "keyint=250:min-keyint=250:bframes=0")
    plan = replace(PLAN, fps=0.5)
    usual, glance = load_clip(path, plan), load_clip(path, replace(plan, keyframes=True))
    assert usual.frames is not None and glance.frames is not None and usual.frame_times is not None
    numbers = codes(usual.frames)
    near = [250 if abs(number - 250) <= 27 else number for number in numbers]  # half of 499 / 9 frames
    assert near != numbers and codes(glance.frames) == near
    same = [one == other for one, other in zip(numbers, near, strict=True)]
    assert np.array_equal(glance.frames[same], usual.frames[same])


def test_one_picture_and_a_track_that_tells_no_times_are_as_ever(tmp_path: Path) -> None:
    for name, count in (("one.mp4", 1), ("bare.h264", 50)):
        path = write_h264(tmp_path / name, count, "keyint=25:bframes=2")
        usual, glance = load_clip(path, PLAN), load_clip(path, replace(PLAN, keyframes=True))
        assert usual.frames is not None and np.array_equal(usual.frames, glance.frames)
        assert np.array_equal(usual.frame_times, glance.frame_times)


@given(
    gaps=st.lists(st.sampled_from([0.04, 0.08, 0.5, 3.0]), min_size=1, max_size=60),
    data=st.data(),
)
def test_no_frame_twice_and_none_out_of_order(gaps: list[float], data: st.DataObject) -> None:
    times = np.concatenate(([0.0], np.cumsum(gaps)))
    some = st.sets(st.integers(0, len(times) - 1), min_size=1)
    chosen, keys = (np.array(sorted(data.draw(some)), np.int64) for _ in range(2))
    taken = at_keyframes(times, chosen, keys)
    assert len(taken) == len(chosen) and (np.diff(taken) > 0).all()
    if len(chosen) == 1:  # one alone is of the middle
        middle = (times[0] + times[-1]) / 2
        near = keys[np.abs(times[keys] - times[np.abs(times - middle).argmin()]) <= times[-1] / 2]
        expected = near if len(near) else np.arange(len(times))
        assert abs(times[taken[0]] - middle) <= np.abs(times[expected] - middle).min() + 2 * max(gaps)
        return
    reach = (times[chosen[-1]] - times[chosen[0]]) / (len(chosen) - 1) / 2
    for wanted, found in zip(chosen, taken, strict=True):
        near = [key for key in keys if abs(times[key] - times[wanted]) <= reach]
        if found != wanted:
            assert found in near and np.isclose(
                abs(times[found] - times[wanted]), min(abs(times[key] - times[wanted]) for key in near)
            )
        else:
            closer = {key for key in near if key != wanted} - set(taken.tolist())
            assert not near or wanted in keys or len(closer) < len(near)


def test_a_single_frame_is_of_the_middle(tmp_path: Path, decoded: list[Meter]) -> None:
    """The keyframe nearest to it, within half the span; without keyframes there, the frame itself."""
    often = write_h264(tmp_path / "often.mp4", 200, "keyint=25:min-keyint=25:bframes=0")
    once = write_h264(tmp_path / "once.mp4", 200, "keyint=250:min-keyint=250:bframes=0")
    plan = replace(PLAN, max_frames=1, min_frames=1, start=2.0, end=6.0, keyframes=True)
    for path, number in ((often, 100), (once, 99)):
        decoded.clear()
        clip = load_clip(path, plan)
        assert clip.frames is not None and clip.frame_times is not None
        assert (codes(clip.frames), clip.frame_times.tolist()) == ([number], [pytest.approx(number / 25)])
    assert load_clip(often, plan).frames.shape[0] == decoded[-1].frames == 1  # type: ignore[union-attr]
