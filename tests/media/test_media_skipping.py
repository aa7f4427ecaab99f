"""Only what is needed is read and decoded of a long clip, and what comes out is as if all of it had been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from makers import write_clip

from echopix_cli.media import Clip, DecodePlan, frame_indices, load_clip, resize_frames
from echopix_cli.media import demux as demux_room
from echopix_cli.media import walk as walk_room
from echopix_cli.media.cost import Meter

SMALL: dict[str, Any] = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28}


def moving(count: int, height: int = 64, width: int = 80) -> list[Any]:
    """A noisy picture that drifts, so that every frame refers to others and none is like another."""
    noise = np.random.default_rng(0).integers(0, 80, (height + 64, width + 128, 3))
    slope = np.arange(width + 128)[None, :, None] % 170
    ground = (noise + slope).astype(np.uint8)
    pictures = []
    for step in range(count):
        y, x = step % 64, 2 * step % 128
        pictures.append(ground[y : y + height, x : x + width].copy())
        pictures[-1][:8, :8] = step % 250
    return pictures


def write_h264(path: Path, pictures: list[Any], x264: str, **more: Any) -> Path:
    options = {"preset": "ultrafast", "refs": "3", "x264-params": f"scenecut=0:{x264}"}
    return write_clip(path, pictures, fps=25, codec="libx264", pix_fmt="yuv420p", options=options, **more)


def decoded_through(path: Path, shape: tuple[int, ...]) -> dict[float, Any]:
    """Every frame of a clip by its time, decoded in one go without a thought of skipping, and resized alike."""
    found = {}
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            pixels = frame.to_ndarray(format="rgb24").transpose(2, 0, 1)
            found[round(frame.time - container.start_time / av.time_base, 4)] = resize_frames(pixels[None], *shape)[0]
    return found


def same_as_decoded_through(clip: Clip, path: Path) -> bool:
    assert clip.frames is not None and clip.frame_times is not None and clip.notices == ()
    whole = decoded_through(path, clip.frames.shape[2:])
    times = [round(float(time), 4) for time in clip.frame_times]
    return all(np.array_equal(frame, whole[time]) for frame, time in zip(clip.frames, times, strict=True))


def referred_to(path: Path) -> list[bool]:
    """For each packet of an MP4's H.264 track whether another frame refers to its frame, as its own header says."""
    flags = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            data, at = bytes(packet), 0
            while at < len(data):
                if data[at + 4] & 31 in (1, 5):  # a slice
                    flags.append(data[at + 4] >> 5 > 0)
                    break
                at += 4 + int.from_bytes(data[at : at + 4], "big")
    return flags


def on_the_way(path: Path, chosen: Any) -> list[range]:
    """The packets from the keyframe before each of the ``chosen`` frames up to its own."""
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        packets = [packet for packet in container.demux(track) if packet.size]
    order = sorted(range(len(packets)), key=lambda number: packets[number].pts)
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    return [range(max(key for key in keys if key <= order[index]), order[index] + 1) for index in chosen]


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    return moving(1500)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_only_the_way_from_each_keyframe_is_read_and_decoded(
    tmp_path: Path, pictures: list[Any], suffix: str, decoded: list[Meter], read: list[int]
) -> None:
    path = write_h264(tmp_path / f"long.{suffix}", pictures, "keyint=60:min-keyint=60:bframes=0")
    clip = load_clip(path, DecodePlan(max_frames=10, **SMALL))
    chosen = frame_indices(1500, 10)
    assert clip.frame_times is not None
    np.testing.assert_allclose(clip.frame_times, chosen / 25, atol=0.001)
    needed = int((chosen % 60 + 1).sum())
    assert needed < 1500 / 4
    assert decoded[0].frames == needed
    assert len(read) == len(set(read)) == needed, "it seeks to each keyframe"
    assert same_as_decoded_through(clip, path)


def test_what_no_frame_refers_to_is_not_decoded(
    tmp_path: Path, pictures: list[Any], decoded: list[Meter], read: list[int]
) -> None:
    path = write_h264(tmp_path / "b.mp4", pictures, "keyint=60:min-keyint=60:bframes=3:b-adapt=0:open-gop=0")
    clip = load_clip(path, DecodePlan(max_frames=10, **SMALL))
    references = referred_to(path)
    ways = on_the_way(path, frame_indices(1500, 10))
    expected = sum(references[number] or number == way[-1] for way in ways for number in way)
    assert expected < 0.6 * len(read)
    assert decoded[0].frames == expected
    assert same_as_decoded_through(clip, path)


@pytest.mark.parametrize("wanted", [{"fps": 2.0}, {"max_frames": 6}, {"start": 3.3, "end": 7.7}, {"fps": 12.5}])
@pytest.mark.parametrize(
    ("name", "x264"),
    [
        ("pyramid.mp4", "keyint=50:bframes=5:b-adapt=0:b-pyramid=normal:ref=5"),
        ("strict.mkv", "keyint=50:bframes=8:b-adapt=0:b-pyramid=strict"),
        ("open.mp4", "keyint=30:bframes=3:open-gop=1"),
        ("open.ts", "keyint=30:bframes=3:open-gop=1"),
        ("fields.mp4", "keyint=60:bframes=3:interlaced=1"),
        ("fields.ts", "keyint=60:bframes=3:tff=1"),
        ("refresh.mp4", "keyint=60:bframes=3:intra-refresh=1"),
        ("slices.mkv", "keyint=60:bframes=2:slices=4:b-adapt=0"),
    ],
)
def test_frames_are_those_of_decoding_everything(
    tmp_path: Path, pictures: list[Any], name: str, x264: str, wanted: dict[str, Any]
) -> None:
    path = write_h264(tmp_path / name, pictures[:250], x264)
    assert same_as_decoded_through(load_clip(path, DecodePlan(**SMALL, **wanted)), path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_what_leads_up_to_a_keyframe_takes_one_group_of_pictures_more(
    tmp_path: Path, pictures: list[Any], decoded: list[Meter], suffix: str
) -> None:
    path = write_h264(tmp_path / f"a.{suffix}", pictures[:250], "keyint=30:bframes=3:b-adapt=0:open-gop=1")
    assert same_as_decoded_through(load_clip(path, DecodePlan(**SMALL, fps=25, start=4.6, end=6.0)), path)
    assert decoded[0].frames <= 30 + 35 + 4


def test_hevc_is_not_passed_over(tmp_path: Path, decoded: list[Meter]) -> None:
    """It calls frames unreferenced that are so in their own temporal layer: those of higher ones may refer to them."""
    options = {"x265-params": "keyint=60:open-gop=0:bframes=4:temporal-layers=3:log-level=none"}
    path = write_clip(tmp_path / "layers.mp4", moving(150), fps=25, codec="libx265", pix_fmt="yuv420p",
                      options=options)  # fmt: skip
    assert same_as_decoded_through(load_clip(path, DecodePlan(**SMALL)), path)
    assert decoded[0].frames == len({number for way in on_the_way(path, frame_indices(150, 12)) for number in way})


@pytest.mark.parametrize(
    ("astray", "openings"),
    [
        (5.0, 2),  # seconds beyond the place: opened again and read through
        (-5.0, 1),  # before it: read on from there
        (None, 2),  # it fails
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_seek_that_leads_elsewhere_changes_nothing(
    tmp_path: Path,
    pictures: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    astray: float | None,
    openings: int,
) -> None:
    path = write_h264(tmp_path / f"a.{suffix}", pictures[:600], "keyint=60:min-keyint=60:bframes=2")
    plan = DecodePlan(max_frames=4, **SMALL)
    right, opened = load_clip(path, plan), []
    assert right.frames is not None

    def seek(container: Any, stream: Any, ticks: int) -> bool:
        return astray is not None and demux_room.seek_to(container, stream, ticks + int(astray / stream.time_base))

    def open_noting(*arguments: Any) -> Any:
        opened.append(arguments)
        return demux_opened(*arguments)

    demux_opened = walk_room.opened
    monkeypatch.setattr(walk_room, "opened", open_noting)
    monkeypatch.setattr(walk_room, "seek_to", seek)
    found = load_clip(path, plan)
    assert found.frames is not None and np.array_equal(found.frames, right.frames)
    assert len(opened) == openings


@pytest.mark.parametrize("lost", ["one", "last", "two"])
def test_a_stand_in_is_the_same_whether_or_not_frames_were_passed_over(
    tmp_path: Path, pictures: list[Any], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """What stands in for a frame that does not come out may be one that nothing refers to."""
    path = write_h264(tmp_path / "a.mp4", pictures[:200], "keyint=50:min-keyint=50:bframes=3:b-adapt=0")
    plan = DecodePlan(max_frames=20, **SMALL)
    whole = load_clip(path, plan)
    assert whole.frame_times is not None
    with av.open(str(path)) as container:
        places = {packet.pts * packet.time_base: packet.pos for packet in container.demux(video=0) if packet.size}
    data = bytearray(path.read_bytes())
    times = sorted(places)
    for number in {"one": [1], "last": [15], "two": [7, 8]}[lost]:
        at = places[min(times, key=lambda time: abs(float(time) - whole.frame_times[number]))]
        data[at : at + 8] = b"\0\0\0\4\x1f\0\0\0"
    path.write_bytes(bytes(data))
    clips = []
    for omits in (True, False):
        with monkeypatch.context() as patch:
            if not omits:
                patch.setattr("echopix_cli.media.scan.can_omit", lambda stream: False)
            clips.append(load_clip(path, plan))
    one, other = clips
    assert one.frames is not None and other.frames is not None
    assert np.array_equal(one.frames, other.frames) and np.array_equal(one.frame_times, other.frame_times)
    assert one.notices == other.notices != ()
