"""The callbacks of loading: what they are given is final and the clip's own, and what they raise comes out as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import greys, numbers, tone, write_clip

from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, Limits, load_clip

SMALL: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a.mkv", greys(40), sound=tone(4))


def test_frames_arrive_one_by_one_and_are_final(clip: Path) -> None:
    arrays, counts, copies = [], [], []

    def arrived(frames: Any, ready: int) -> None:
        arrays.append(frames)
        counts.append(ready)
        copies.append(frames[:ready].copy())

    found = load_clip(clip, DecodePlan(**SMALL), arrived=arrived)
    assert found.frames is not None and len(found.frames) == 8
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(array is found.frames for array in arrays)
    assert all(np.array_equal(copy, found.frames[: len(copy)]) for copy in copies)


def test_sound_is_heard_before_the_first_frame(clip: Path) -> None:
    order: list[Any] = []
    found = load_clip(clip, heard=order.append, arrived=lambda frames, ready: order.append(ready))
    assert order[0] is found.waveform and order[1:] == list(range(1, 9))
    silent: list[Any] = []
    load_clip(clip, DecodePlan(audio=False), heard=silent.append)
    assert silent == []


def test_frames_that_come_out_late_are_waited_for(tmp_path: Path) -> None:
    """A lost frame's place is filled, if at all, when what follows it is there already."""
    path = write_clip(tmp_path / "a.mp4", greys(200), fps=25, codec="libx264", pix_fmt="yuv420p",
                      options={"x264-params": "keyint=25:min-keyint=25:scenecut=0:bframes=3:b-adapt=0"})  # fmt: skip
    plan, counts = DecodePlan(max_frames=4, **SMALL), []
    _spoil(path, 66 / 25)
    found = load_clip(path, plan, arrived=lambda frames, ready: counts.append(ready))
    assert found.frame_times is not None
    np.testing.assert_allclose(found.frame_times, np.array([0, 65, 133, 199]) / 25, atol=0.001)
    assert counts == [1, 4], "the second one only after the last: the frame before it stands in"


def test_a_lost_frame_can_be_told_by_the_array(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mov", greys(40), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT", len(data) // 2)
    data[at : at + 40] = bytes(40)
    path.write_bytes(bytes(data))
    calls: list[tuple[Any, int]] = []
    found = load_clip(path, DecodePlan(fps=10, **SMALL), arrived=lambda frames, ready: calls.append((frames, ready)))
    assert found.frames is not None and len(found.frames) == 39
    frames, ready = calls[-1]
    assert frames is not found.frames and len(frames) == 40
    assert numbers(frames[:ready]) == list(range(ready)) and 15 < ready < 39
    assert np.array_equal(frames[:ready], found.frames[:ready])


def _spoil(path: Path, seconds: float) -> None:
    """Make one frame undecodable."""
    import av

    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place = min(packets, key=lambda packet: abs(float(packet.pts * packet.time_base) - seconds)).pos
    data = bytearray(path.read_bytes())
    data[place : place + 8] = b"\0\0\0\4\x1f\0\0\0"
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("mine"),
        MemoryError("mine"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MediaError("mine", "no hint"),
        OSError("mine"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("which", ["heard", "arrived"])
def test_what_a_callback_raises_comes_out_as_it_is(clip: Path, which: str, error: BaseException) -> None:
    def fail(*_: Any) -> None:
        raise error

    callback: dict[str, Callable[..., None]] = {which: fail}
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(type(error)) as caught:
        load_clip(clip, **callback)  # type: ignore[arg-type]
    assert caught.value is error and error.__cause__ is None and error.__context__ is None
    assert sorted(os.listdir("/proc/self/fd")) == before, "files are closed"


def test_no_frames_arrive_of_a_picture_that_is_refused(clip: Path) -> None:
    calls: list[int] = []
    with pytest.raises(MediaError, match="edges may be at most"):
        load_clip(clip, DecodePlan(limits=Limits(max_side=79)), arrived=lambda frames, ready: calls.append(ready))
    assert calls == []
