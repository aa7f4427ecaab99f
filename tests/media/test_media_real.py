"""Clips that nobody on this project made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from echopix_cli.media import DecodePlan, frame_indices, load_clip, probe
from echopix_cli.results import AudioStatus


def test_two_tracks_of_each_kind(real: Path) -> None:
    clip = load_clip(real / "nasa_13013.mp4", DecodePlan(video_track=0, audio_track=1))
    assert clip.frames is not None and clip.frame_times is not None and clip.waveform is not None
    np.testing.assert_allclose(clip.frame_times, frame_indices(325, 26) / 25)
    assert clip.frames.shape == (26, 3, 252, 448) and clip.audio_seconds == pytest.approx(13.0, abs=0.1)
    assert clip.audio_status is AudioStatus.USED and clip.notices == ()
    assert clip.waveform.std() > 1e-3
    assert [track.kind for track in probe(real / "nasa_13013.mp4").tracks] == ["video"] * 2 + ["audio"] * 2


@pytest.mark.parametrize(
    ("name", "size", "frames", "fps"),
    [
        ("av1_video.mkv", (360, 640), 125, 25),
        ("h265_video.mp4", (128, 128), 10, 10),
        ("h264_10bits.mp4", (200, 200), 30, 30),
    ],
)
def test_silent_clips(real: Path, name: str, size: tuple[int, int], frames: int, fps: int) -> None:
    clip = load_clip(real / name)
    assert clip.frame_times is not None and clip.frames is not None
    assert clip.source_size == size and clip.source_fps == fps
    np.testing.assert_allclose(clip.frame_times, frame_indices(frames, len(clip.frames)) / fps, atol=1e-6)
    assert clip.audio_status is AudioStatus.ABSENT and clip.frames.std() > 10


def test_a_late_span_shows_the_same_frames_as_the_whole(real: Path) -> None:
    path = real / "nasa_13013.mp4"
    whole = load_clip(path, DecodePlan(fps=25, max_frames=400, max_pixels=6272, video_track=0, audio=False))
    part = load_clip(path, DecodePlan(fps=25, max_pixels=6272, video_track=0, audio=False, start=8.0, end=9.0))
    assert whole.frames is not None and whole.frame_times is not None
    assert part.frames is not None and part.frame_times is not None
    for frame, time in zip(part.frames, part.frame_times, strict=True):
        place = int(np.argmin(np.abs(whole.frame_times - time)))
        np.testing.assert_array_equal(frame, whole.frames[place])


@pytest.mark.parametrize(("name", "seconds"), [("jfk.flac", 11.0), ("sine_mono_s16.wav", 4.0)])
def test_sound_alone(real: Path, name: str, seconds: float) -> None:
    clip = load_clip(real / name)
    assert clip.frames is None and clip.waveform is not None
    assert clip.waveform.size == seconds * 16_000 and 0.05 < np.abs(clip.waveform).max() <= 1
