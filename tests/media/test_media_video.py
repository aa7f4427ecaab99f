"""The picture: exactly the right frames, upright, at their true times."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import greys, numbers, shade, tone, write_clip, write_picture

from echopix_cli.errors import MediaError
from echopix_cli.media import DecodePlan, frame_indices, load_clip, probe
from echopix_cli.results import AudioStatus

SMALL = {"min_pixels": 28 * 28, "max_pixels": 100 * 28 * 28}


@pytest.mark.parametrize("fps", [10, 25, Fraction(30000, 1001)])
def test_frames_follow_the_index_rule_exactly(tmp_path: Path, fps: Any) -> None:
    clip = load_clip(write_clip(tmp_path / "a.mkv", greys(75), fps=fps), DecodePlan(**SMALL))
    expected = frame_indices(75, int(75 / fps * 2) // 2 * 2)
    assert clip.frames is not None and clip.frame_times is not None
    assert numbers(clip.frames) == expected.tolist()
    np.testing.assert_allclose(clip.frame_times, expected / float(fps), atol=0.001)
    assert clip.source_fps == pytest.approx(float(fps), rel=1e-4)
    assert clip.second_per_grid == pytest.approx(2 * np.diff(clip.frame_times).mean())
    assert clip.audio_status is AudioStatus.ABSENT and clip.waveform is None and clip.notices == ()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("long_gop.mp4", {"g": "250", "bf": "3", "crf": "1"}),
        ("open_gop.mp4", {"g": "8", "bf": "3", "crf": "1", "x264-params": "open-gop=1:scenecut=0"}),
        ("open_gop.ts", {"g": "8", "bf": "3", "crf": "1", "x264-params": "open-gop=1:scenecut=0"}),
        ("raw.h264", {"g": "8", "bf": "3", "crf": "1"}),
    ],
)
@pytest.mark.parametrize("wanted", [{"fps": 2.0}, {"fps": 100.0}, {"max_frames": 4}])
def test_skipping_between_keyframes_finds_the_same_frames(
    tmp_path: Path, name: str, options: dict[str, str], wanted: dict[str, Any]
) -> None:
    path = write_clip(tmp_path / name, greys(78), codec="libx264", pix_fmt="yuv444p", fps=25, options=options)
    clip = load_clip(path, DecodePlan(**SMALL, **wanted))
    count = {"fps": 6, "max_frames": 4}[next(iter(wanted))] if wanted != {"fps": 100.0} else 78
    assert clip.frames is not None
    assert numbers(clip.frames) == frame_indices(78, count).tolist()
    assert clip.notices == ()


def test_variable_frame_rate_takes_the_frame_nearest_in_time(tmp_path: Path) -> None:
    times = [i / 20 for i in range(40)] + [2 + i for i in range(10)]  # dense for 2 s, then one per second
    clip = load_clip(write_clip(tmp_path / "v.mkv", greys(50), times=times), DecodePlan(fps=1, **SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    targets = np.linspace(0, 11, 10)
    nearest = [int(np.argmin(np.abs(np.array(times) - target))) for target in targets]
    assert numbers(clip.frames) == nearest
    np.testing.assert_allclose(clip.frame_times, np.array(times)[nearest], atol=0.001)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize(
    ("start", "end", "first", "last"), [(2.0, 5.0, 20, 49), (2.05, None, 21, 59), (None, 1.0, 0, 9)]
)
def test_a_span_is_taken_and_times_stay_those_of_the_media(
    tmp_path: Path, suffix: str, start: float | None, end: float | None, first: int, last: int
) -> None:
    path = write_clip(
        tmp_path / f"a.{suffix}",
        greys(60),
        codec="libx264",
        pix_fmt="yuv444p",
        options={"g": "15", "crf": "1"},
        sound=tone(6),
        audio_codec="aac",
    )
    clip = load_clip(path, DecodePlan(start=start, end=end, fps=100, **SMALL))
    assert clip.frames is not None and clip.frame_times is not None and clip.waveform is not None
    count = (last - first + 1) // 2 * 2
    assert numbers(clip.frames) == [first + i for i in frame_indices(last - first + 1, count)]
    assert clip.frame_times[0] == pytest.approx(first / 10, abs=0.001)
    assert clip.start == (start or 0.0) and clip.end == pytest.approx(end or 6.0, abs=0.1)
    assert clip.waveform.size / 16_000 == pytest.approx((end or 6.0) - (start or 0.0), abs=0.1)


def test_a_span_between_two_slides_shows_the_one_on_screen(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "s.mkv", greys(3), times=[0, 10, 20])
    clip = load_clip(path, DecodePlan(start=12, end=15, **SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    assert numbers(clip.frames) == [1] and clip.frame_times.tolist() == [10.0]


def test_tracks_that_start_late_keep_their_distance(tmp_path: Path) -> None:
    late_video = write_clip(tmp_path / "v.mkv", greys(20), video_start=1.5, sound=tone(4))
    clip = load_clip(late_video, DecodePlan(**SMALL))
    assert clip.frame_times is not None and clip.waveform is not None
    assert clip.frame_times[0] == pytest.approx(1.5, abs=0.002)
    assert float(np.abs(clip.waveform[:1600]).max()) == pytest.approx(0.5, abs=0.01)
    # Both tracks 5 s into container time: the earlier one is time 0.
    both = write_clip(tmp_path / "b.ts", greys(20), video_start=5.5, sound=tone(2), sound_start=5.0,
                      codec="libx264", pix_fmt="yuv420p", fps=25, audio_codec="aac")  # fmt: skip
    clip = load_clip(both, DecodePlan(**SMALL))
    assert clip.frame_times is not None
    assert clip.frame_times[0] == pytest.approx(0.5, abs=0.07)  # AAC's run-in begins 64 ms early in a TS


def _corner(frame: Any) -> str:
    """Which corner of ``(3, H, W)`` is bright."""
    height, width = frame.shape[1:]
    quarters = {
        "top left": frame[:, : height // 4, : width // 4],
        "top right": frame[:, : height // 4, -width // 4 :],
        "bottom left": frame[:, -height // 4 :, : width // 4],
        "bottom right": frame[:, -height // 4 :, -width // 4 :],
    }
    return max(quarters, key=lambda name: float(quarters[name].mean()))


@pytest.mark.parametrize(
    ("counterclockwise", "hflip", "corner", "portrait"),
    [
        (0, False, "top left", False),
        (90, False, "bottom left", True),
        (180, False, "bottom right", False),
        (-90, False, "top right", True),
        (0, True, "top right", False),
        (90, True, "bottom right", True),
    ],
)
def test_rotated_clips_come_out_upright(
    tmp_path: Path, counterclockwise: int, hflip: bool, corner: str, portrait: bool
) -> None:
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:30, :30] = 255
    path = write_clip(tmp_path / "r.mp4", [picture] * 4, codec="libx264", pix_fmt="yuv420p",
                      rotation=counterclockwise, hflip=hflip)  # fmt: skip
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.frames is not None
    assert _corner(clip.frames[0]) == corner
    assert clip.source_size == ((160, 96) if portrait else (96, 160))
    assert (clip.frames.shape[2] > clip.frames.shape[3]) is portrait
    if not hflip:
        assert probe(path).tracks[0].rotation == clip.info.tracks[0].rotation == -counterclockwise % 360


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv420p10le", "mp4"),
        ("libx265", "yuv420p10le", "mp4"),
        ("libsvtav1", "yuv420p10le", "mkv"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("mpeg4", "yuv420p", "avi"),
        ("mjpeg", "yuvj420p", "mov"),
    ],
)
def test_codecs_and_bit_depths(tmp_path: Path, codec: str, pix_fmt: str, suffix: str) -> None:
    best = {"qmin": "1", "qmax": "2"}  # mpeg4 would swallow small changes
    path = write_clip(tmp_path / f"c.{suffix}", greys(12, 96, 128), codec=codec, pix_fmt=pix_fmt,
                      options=best if codec == "mpeg4" else None)  # fmt: skip
    clip = load_clip(path, DecodePlan(**SMALL))
    assert clip.frames is not None
    assert len(clip.frames) == 4
    for frame, number in zip(clip.frames, frame_indices(12, 4), strict=True):
        assert float(frame.mean()) == pytest.approx(shade(int(number)), abs=3)
    assert clip.notices == ()


def test_odd_sizes_and_sample_aspect(tmp_path: Path) -> None:
    clip = load_clip(write_clip(tmp_path / "o.mkv", greys(4, 179, 321)))
    assert clip.frames is not None
    assert clip.source_size == (179, 321) and clip.frames.shape == (4, 3, 252, 448)
    path = write_clip(tmp_path / "w.mp4", greys(4, 200, 200), aspect=Fraction(2, 1), codec="libx264",
                      pix_fmt="yuv420p")  # fmt: skip
    wide = load_clip(path)
    assert wide.frames is not None
    assert wide.source_size == (200, 400) and wide.frames.shape[3] > 1.5 * wide.frames.shape[2]


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [
        ("png", "rgb24", "a.png"),
        ("mjpeg", "yuvj444p", "a.jpg"),
        ("libwebp", "bgra", "a.webp"),
        ("bmp", "bgr24", "a%03d.bmp"),
    ],
)
def test_a_still_image_is_a_video_of_one_frame(tmp_path: Path, codec: str, pix_fmt: str, name: str) -> None:
    clip = load_clip(write_picture(tmp_path / name, greys(5)[4], codec, pix_fmt), DecodePlan(fps=4.0, **SMALL))
    assert clip.frames is not None and clip.frame_times is not None
    assert float(clip.frames.mean()) == pytest.approx(shade(4), abs=2)
    assert clip.frame_times.tolist() == [0.0] and clip.second_per_grid == 0.5


def test_one_frame_of_video(tmp_path: Path) -> None:
    clip = load_clip(write_clip(tmp_path / "1.mp4", greys(1), codec="libx264", pix_fmt="yuv420p"))
    assert clip.frames is not None and len(clip.frames) == 1 and clip.second_per_grid == 1.0


def test_several_tracks_and_asking_for_one(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "t.mkv", greys(4), extra_frames=greys(4, 90, 120))
    sizes = [load_clip(path, DecodePlan(video_track=number)).source_size for number in (0, 1)]
    assert sizes == [(60, 80), (90, 120)]
    assert "2 video tracks" in load_clip(path).notices[0]
    with pytest.raises(MediaError, match="no video track 2; it has: 0, 1"):
        load_clip(path, DecodePlan(video_track=2))
    with pytest.raises(MediaError, match="no audio track 0; it has: none"):
        load_clip(path, DecodePlan(audio_track=0))


def test_probe_tells_what_is_in_the_file(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "p.mp4", greys(20), codec="libx264", pix_fmt="yuv420p", sound=tone(2), audio_codec="aac"
    )
    info = probe(path)
    video, audio = info.tracks
    assert info.duration == pytest.approx(2.0, abs=0.1) and "mp4" in info.format
    assert (video.kind, video.codec, video.width, video.height, video.fps) == ("video", "h264", 80, 60, 10.0)
    assert (audio.kind, audio.codec, audio.sample_rate, audio.channels) == ("audio", "aac", 16_000, 1)
    assert video.duration == pytest.approx(2.0) and audio.language is None


def test_memory_is_bounded_by_the_frames_that_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "long.mkv"
    picture = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    write_clip(path, [picture] * 400, codec="mjpeg", pix_fmt="yuvj420p", fps=25)
    load_clip(path, DecodePlan(max_frames=4))  # imports and caches come first
    tracemalloc.start()
    try:
        clip = load_clip(path, DecodePlan(max_frames=4, **SMALL))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert clip.frames is not None and len(clip.frames) == 4
    whole = 400 * 240 * 320 * 3  # 92 MB, were every frame kept
    assert peak < whole / 20


@pytest.mark.parametrize("wanted", [{"fps": 2.0}, {"fps": 10.0}])
def test_an_animated_png_that_cannot_be_entered_in_its_middle_is_not_damaged(tmp_path: Path, wanted: Any) -> None:
    """Its frames cover the whole picture and count as keyframes, and the decoder still needs those before them."""
    path = write_clip(tmp_path / "a.apng", greys(10), codec="apng", pix_fmt="rgb24")
    clip = load_clip(path, DecodePlan(**SMALL, **wanted))
    assert clip.frames is not None and clip.notices == ()
    assert numbers(clip.frames) == ([0, 3, 6, 9] if wanted["fps"] == 2.0 else list(range(10)))
